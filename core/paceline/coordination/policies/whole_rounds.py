"""Times seen in rounds that cut nobody off: the others show a slow worker only when it was lucky."""

from __future__ import annotations

from collections.abc import Sequence

from paceline.coordination.ids import WorkerName
from paceline.coordination.plan import PolicyState, Update, View
from paceline.coordination.saved import Saved

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
        # A row is never changed, only replaced: states share it.
        self._times_s: dict[str, list[float]] = {}
        self._whole = True

    def due(self, view: View) -> bool:
        """Tell whether this round must be whole; until `begin` says otherwise it is."""
        unseen = any(worker.name not in self._times_s for worker in view.workers)
        self._whole = view.round <= _AT_FIRST or view.round % _EVERY == 0 or unseen
        return self._whole

    def begin(self, *, whole: bool) -> None:
        """Note that the present round is whole, or that somebody may be cut off in it."""
        self._whole = whole

    def of(self, worker: WorkerName) -> Sequence[float]:
        """Give a worker's last times in seconds, oldest first; empty if it was never seen."""
        return self._times_s.get(worker, ())

    def learn(self, update: Update) -> None:
        """Keep the times of a round, if it was whole."""
        if self._whole:
            rows: dict[str, list[float]] = {}
            for task in update.finished:
                rows.setdefault(task.worker, [*self.of(task.worker)]).append(task.seconds)
            self._times_s.update((worker, row[-self._kept :]) for worker, row in rows.items())

    def state(self) -> PolicyState:
        """Give the times, and whether the present round is whole."""
        return {"times_s": dict(self._times_s), "whole": self._whole}

    def restore(self, saved: Saved) -> None:
        """See `Policy.restore`."""
        times_s, whole = saved.fields("times_s", "whole")
        rows = {worker: [one.seconds() for one in row.row(1, self._kept)] for worker, row in times_s.items()}
        self._whole = whole.flag()
        self._times_s = rows
