"""Tests that tell when SGD with a constant step has stopped making progress and only jumps about.

Sources: Pflug (1990), "Non-asymptotic confidence bounds for stochastic approximation algorithms with constant step
size": consecutive gradients point against each other near the optimum. Pesme, Dieuleveut, Flammarion (2020), "On
Convergence-Diagnostic based Step Sizes for Stochastic Gradient Descent": the distance from where a phase began stops
growing. The constants are not the papers': with these the tests do on linear regression what the papers say.
"""

from __future__ import annotations

import math
from typing import Protocol


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
        self._before: tuple[float, float] | None = None
        self._seen = math.nan

    def stationary(self, value: float) -> bool:
        """See `StationarityTest`."""
        self._updates += 1
        if self._updates < self._due:
            return False
        now = (math.log(self._updates), math.log(value) if value > 0 else -math.inf)
        before, self._before = self._before, now
        while self._due <= self._updates:
            self._due = math.ceil(self._due * self._factor)
        if before is None or now[1] == -math.inf:
            return False
        self._seen = (now[1] - before[1]) / (now[0] - before[0])
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
