"""A number that grows with the rounds: how many workers are employed, or how many results are awaited."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

from paceline.errors import UsageError

_EXPECTED = "expected growing round numbers like 100,200,300, or every:1000"


@dataclass(frozen=True, slots=True)
class Switches:
    """Rounds after which something grows: those listed, or every so many.

    Args:
        rounds: T_1 < T_2 < ..., each above 0.
        every: 0: none but those listed; else T_r = r * every, and `rounds` is empty.
    """

    rounds: tuple[int, ...] = ()
    every: int = 0

    def before(self, number: int) -> int:
        """Count the switching rounds before round `number` (1-based)."""
        if self.every:
            return (number - 1) // self.every
        return bisect_left(self.rounds, number)

    def __str__(self) -> str:
        return f"every:{self.every}" if self.every else ",".join(map(str, self.rounds))


@dataclass(frozen=True, slots=True)
class GrowingCount:
    """A count that starts small and grows by a step after each switching round, up to a bound.

    Args:
        start: in round 1.
        step: added after each switching round.
        most: never above this: the settings' tasks per round.
        switch_at: when it grows.

    Raises:
        UsageError: a start outside 1 to `most`, or a step below 1.
    """

    start: int
    step: int
    most: int
    switch_at: Switches = Switches()

    def __post_init__(self) -> None:
        check_growth(self.start, self.step, self.most)

    def at(self, number: int) -> int:
        """Give the count of round `number` (1-based)."""
        return min(self.most, self.start + self.step * self.switch_at.before(number))


def check_growth(start: int, step: int, most: int) -> None:
    """Raise UsageError unless a count can begin at `start` and grow by `step` up to `most`."""
    if not 1 <= start <= most:
        raise UsageError(f"k-start is {start}: expected 1 to the tasks per round, {most}")
    if step < 1:
        raise UsageError(f"k-step is {step}: expected at least 1")


def parse_switch_at(text: str) -> Switches:
    """Read switching rounds: "100,200,300", or "every:1000".

    Raises:
        UsageError: not numbers, or not growing ones above 0.
    """
    kind, colon, period = text.strip().partition(":")
    words = [period] if colon else kind.split(",")
    if (colon and kind != "every") or not all(word.strip().isdecimal() for word in words):
        raise UsageError(f"switch-at is {text!r}: {_EXPECTED}")
    numbers = tuple(int(word) for word in words)
    if any(later <= earlier for earlier, later in zip((0, *numbers), numbers, strict=False)):
        raise UsageError(f"switch-at is {text!r}: {_EXPECTED}, each above the one before and above 0")
    return Switches(every=numbers[0]) if colon else Switches(numbers)
