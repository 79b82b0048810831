"""Tests that tell when SGD with a constant step has stopped making progress and only jumps about.

Sources: Pflug (1990), "Non-asymptotic confidence bounds for stochastic approximation algorithms with constant step
size": consecutive gradients point against each other near the optimum. Pesme, Dieuleveut, Flammarion (2020), "On
Convergence-Diagnostic based Step Sizes for Stochastic Gradient Descent": the distance from where a phase began stops
growing. The constants are not the papers': with these the tests do on linear regression what the papers say.
"""

from __future__ import annotations

import math
from typing import Protocol

from paceline.coordination.plan import PolicyState
from paceline.coordination.saved import Saved, number


class StationarityTest(Protocol):
    """Looks at one number of each update.

    Attributes:
        scalar: its name, see `plan.SCALARS`.
    """

    scalar: str

    def stationary(self, value: float) -> bool:
        """Take an update's number; tell whether the phase is over."""
        ...

    def restart(self) -> None:
        """A new phase begins."""
        ...

    def note(self) -> str:
        """Say how far it is, in words."""
        ...

    def state(self) -> PolicyState:
        """Give what it keeps, see `Policy.state`."""
        ...

    def restore(self, saved: Saved) -> None:
        """Go on from a state, see `Policy.restore`."""
        ...


class Pflug:
    """Counts updates whose gradient points against the one before, less those that do not.

    Args:
        threshold: more than so many end the phase.
        burn_in: updates that a phase has at least.
        clamped: the counter never falls below 0; False: Pflug's own, which may never come back from a long descent.
    """

    scalar = "inner-product"

    def __init__(self, threshold: int = 10, burn_in: int = 200, *, clamped: bool = True) -> None:
        self._threshold = threshold
        self._burn_in = burn_in
        self._clamped = clamped
        self._count = 0
        self._updates = 0
        self._first = True

    def stationary(self, value: float) -> bool:
        """See `StationarityTest`; the run's first update has no gradient before it and only counts as one."""
        if not self._first:
            self._count += 1 if value < 0 else -1
            if self._clamped:
                self._count = max(0, self._count)
        self._first = False
        self._updates += 1
        return self._count > self._threshold and self._updates > self._burn_in

    def restart(self) -> None:
        """See `StationarityTest`."""
        self._count = self._updates = 0

    def note(self) -> str:
        """See `StationarityTest`."""
        return f"Pflug's counter is {self._count} of {self._threshold} after {self._updates} rounds"

    def state(self) -> PolicyState:
        """See `StationarityTest`."""
        return {"count": self._count, "first": self._first, "updates": self._updates}

    def restore(self, saved: Saved) -> None:
        """See `StationarityTest`."""
        count, first, updates = saved.fields("count", "first", "updates")
        new_updates = updates.count(0)
        new_count = count.count(0 if self._clamped else -new_updates, new_updates)
        self._first = first.flag()
        self._count, self._updates = new_count, new_updates


class Distance:
    """Looks how fast the squared distance from the phase's first parameters grows, in a log-log plot.

    Args:
        slope: below it the phase is over; 1 is a random walk, 0 standing still.
        first: updates before the first look; the next ones come after `factor` times as many each.
        factor: above 1.
    """

    scalar = "distance"

    def __init__(self, slope: float = 0.6, first: int = 200, factor: float = 1.5) -> None:
        self._slope = slope
        self._first = first
        self._factor = factor
        self._updates = 0
        self._due = first
        self._before: tuple[int, float] | None = None
        self._seen = math.nan

    def stationary(self, value: float) -> bool:
        """See `StationarityTest`."""
        self._updates += 1
        if self._updates < self._due:
            return False
        before, self._before = self._before, (self._updates, value)
        while self._due <= self._updates:
            self._due = math.ceil(self._due * self._factor)
        if before is None or not value > 0:
            return False
        self._seen = (_log(value) - _log(before[1])) / (math.log(self._updates) - math.log(before[0]))
        return self._seen < self._slope

    def restart(self) -> None:
        """See `StationarityTest`."""
        self._updates = 0
        self._due = self._first
        self._before = None
        self._seen = math.nan

    def note(self) -> str:
        """See `StationarityTest`."""
        slope = "not known yet" if math.isnan(self._seen) else f"{self._seen:.2f}"
        return f"the distance's slope is {slope} (over at {self._slope:g}) after {self._updates} rounds"

    def state(self) -> PolicyState:
        """See `StationarityTest`."""
        before = None if self._before is None else [self._before[0], number(self._before[1])]
        return {"before": before, "due": self._due, "seen": number(self._seen), "updates": self._updates}

    def restore(self, saved: Saved) -> None:
        """See `StationarityTest`."""
        before, due, seen, updates = saved.fields("before", "due", "seen", "updates")
        new_updates = updates.count(0)
        new_before = None
        if not before.none:
            looked, value = before.row(2, 2)
            new_before = (looked.count(1, new_updates), value.number())
        # A look that was due already has been.
        new_due = due.count(new_updates + 1)
        self._seen = seen.number()
        self._before, self._due, self._updates = new_before, new_due, new_updates


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf
