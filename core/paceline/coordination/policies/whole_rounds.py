"""Times seen in rounds that cut nobody off: the others show a slow worker only when it was lucky."""

from __future__ import annotations

from collections import deque

from paceline.coordination.ids import WorkerName
from paceline.coordination.plan import Update, View

_AT_FIRST = 5
_EVERY = 20


class WholeRounds:
    """Says which rounds are to be whole, and keeps each worker's last times in them.

    The first few rounds are, one now and then, and any with a worker whose times were never seen.

    Args:
        kept: times of each worker.
    """

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._times_s: dict[WorkerName, deque[float]] = {}
        self._whole = True

    def due(self, view: View) -> bool:
        """Tell whether this round must be whole; until `begin` says otherwise it is."""
        unseen = any(worker.name not in self._times_s for worker in view.workers)
        self._whole = view.round <= _AT_FIRST or view.round % _EVERY == 0 or unseen
        return self._whole

    def begin(self, *, whole: bool) -> None:
        """Note that the present round is whole, or that somebody may be cut off in it."""
        self._whole = whole

    def of(self, worker: WorkerName) -> list[float]:
        """Give a worker's last times in seconds, oldest first; empty if it was never seen."""
        return list(self._times_s.get(worker, ()))

    def learn(self, update: Update) -> None:
        """Keep the times of a round, if it was whole."""
        if self._whole:
            for task in update.finished:
                self._times_s.setdefault(task.worker, deque(maxlen=self._kept)).append(task.seconds)
