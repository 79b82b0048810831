"""The real machine under watch: its invariants are checked after every event, and what went in and out is kept."""

from __future__ import annotations

from collections.abc import Callable

from paceline.coordination import Machine, MachineError
from paceline.coordination.effects import Effect
from paceline.coordination.events import Event


class Checked:
    """A machine that validates itself after every event, and can tell at any time how it stands.

    Args:
        keep: remember all events and effects, for a replay.
    """

    def __init__(self, machine: Machine, *, keep: bool = False) -> None:
        self.machine = machine
        self.tape: list[tuple[Event, float, list[Effect]]] = []
        self._keep = keep

    @property
    def deadline(self) -> float | None:
        return self.machine.deadline

    def step(self, event: Event, now: float) -> list[Effect]:
        effects = self.machine.step(event, now)
        if self._keep:
            self.tape.append((event, now, effects))
        try:
            self.machine.validate()
            assert self.machine.snapshot(now).situation
        except (AssertionError, MachineError) as error:
            raise AssertionError(f"after {event} at {now}, which gave {effects}: {error}") from error
        return effects


def replayed(make: Callable[[], Machine], tape: list[tuple[Event, float, list[Effect]]]) -> list[list[Effect]]:
    """Give the effects of a fresh machine that takes the same events."""
    machine = make()
    return [machine.step(event, now) for event, now, _ in tape]
