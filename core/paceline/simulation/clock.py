"""The virtual clock: what happens next, in order of time and, at one time, in order of asking."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable


class Clock:
    """Time stands still unless the driver moves it."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def at(self, time_s: float, action: Callable[[], None]) -> None:
        """Do something at a time."""
        self._count += 1
        heapq.heappush(self._heap, (time_s, self._count, action))

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something later."""
        self.at(self.now + seconds, action)

    @property
    def next_s(self) -> float:
        """When something happens next; infinite if nothing will."""
        return self._heap[0][0] if self._heap else math.inf

    def take(self) -> Callable[[], None]:
        """Give what happens next."""
        return heapq.heappop(self._heap)[2]
