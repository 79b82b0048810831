"""Sums by name that a job's loss or validate gives: what they may be called, and what their means are called."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

# Each becomes a column of the ledger's rounds and a series of Prometheus.
MOST_SUMS = 16
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
SUFFIX = "_sum"
# Of rounds: the loss itself, and what they are described by.
TAKEN = frozenset(("loss", "round"))


def mean_name(name: str) -> str:
    """Give the name of a sum's mean."""
    return name.removesuffix(SUFFIX)


class GivenSums:
    """Sums by name, each with the number of samples that it is over, as they come in; and their means.

    A mean is rounded once (fsum is exact), so that it does not depend on the order of arrival.
    """

    def __init__(self) -> None:
        self._given: dict[str, list[tuple[float, int]]] = {}

    def add(self, sums: Iterable[tuple[str, float]], samples: int) -> None:
        """Take in one task's; more than MOST_SUMS names, which no honest worker gives, are left out."""
        for name, value in sums:
            if name in self._given or len(self._given) < MOST_SUMS:
                self._given.setdefault(name, []).append((value, samples))

    def means(self) -> tuple[tuple[str, float], ...]:
        """Give each mean over the samples of the tasks that gave its sum, ascending by name."""
        return tuple((mean_name(name), _mean(given)) for name, given in sorted(self._given.items()))


def _mean(given: Sequence[tuple[float, int]]) -> float:
    return math.fsum(value for value, _ in given) / max(sum(samples for _, samples in given), 1)


def check_sums(sums: Mapping[str, float], whose: str = "loss()", taken: Collection[str] = TAKEN) -> None:
    """Refuse sums that cannot be shown.

    Args:
        whose: what gave them.
        taken: names that a mean cannot have.

    Raises:
        ValueError: too many, a name that is none or is taken, or a number that is not finite.
    """
    if len(sums) > MOST_SUMS:
        raise ValueError(f"{whose} gave {len(sums)} sums: expected at most {MOST_SUMS}")
    means = [mean_name(name) for name in sums]
    for name, value in sums.items():
        if means.count(mean_name(name)) > 1:
            raise ValueError(f"{whose} gave {mean_name(name)!r} twice, with and without {SUFFIX}: expected one")
        if not NAME.fullmatch(name) or not mean_name(name) or mean_name(name) in taken:
            expected = f"expected letters, digits, - and _{', and not ' * bool(taken)}{' or '.join(sorted(taken))}"
            raise ValueError(f"{whose} gave a sum called {name!r}: {expected}")
        if not math.isfinite(value):
            raise ValueError(f"{whose} gave {name} = {value}: expected a finite number")
