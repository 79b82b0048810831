"""What pictures of a run are drawn from: its curves, thinned out, and its latest rounds one by one.

An observer of what the books note, live or read from a ledger. Its memory is bounded, however long the run: a curve
that has too many points keeps half of them, each then standing for twice as many rounds.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from paceline.allocation import ata_empirical_radius_s
from paceline.coordination.effects import RoundRecord
from paceline.coordination.ids import WorkerName

T = TypeVar("T")

MOST_POINTS = 256
# Rounds that are kept one by one, and bars of workers in all of them.
MOST_ROUNDS, MOST_BARS = 40, 4000
# A clock that seems to go back by less than this is the same life's.
_SAME_S = 1e-6
# Workers whose learned speed is kept.
MOST_LEARNED = 512


_NOTHING = np.zeros((0, 2), dtype=np.float32)


class Thinned(Generic[T]):
    """The points of a curve, each standing for `stride` items, a power of two.

    Items wait for the next point as in a binary counter: two that stand for as many become one. So few are kept,
    however many a point stands for.

    Args:
        merge: makes one of two neighbours, given how many items each stands for.
        most: fewer points than this are kept; even.
    """

    def __init__(self, merge: Callable[[T, int, T, int], T], most: int = MOST_POINTS) -> None:
        self.stride = 1
        self.points: list[T] = []
        self._merge = merge
        self._most = most
        self._waiting: list[tuple[T, int]] = []

    @property
    def completes(self) -> bool:
        """Tell whether the next item makes a point."""
        return sum(count for _, count in self._waiting) + 1 == self.stride

    @property
    def unfinished(self) -> list[T]:
        """Give what stands for the items since the last point: one that is not complete yet, or none."""
        if not self._waiting:
            return []
        point, items = self._waiting[0]
        for other, count in self._waiting[1:]:
            point, items = self._merge(point, items, other, count), items + count
        return [point]

    def add(self, item: T) -> None:
        """Take an item."""
        count = 1
        while self._waiting and self._waiting[-1][1] == count:
            earlier, _ = self._waiting.pop()
            item, count = self._merge(earlier, count, item, count), 2 * count
        if count < self.stride:
            self._waiting.append((item, count))
            return
        self.points.append(item)
        if len(self.points) == self._most:
            pairs = zip(self.points[::2], self.points[1::2], strict=True)
            self.points = [self._merge(first, self.stride, second, self.stride) for first, second in pairs]
            self.stride *= 2


Learned = npt.NDArray[np.float32]
"""Learned seconds per task and their confidence radius, shape (n, 2), in the order of `History.learners`."""


@dataclass(frozen=True, slots=True)
class RoundPoint:
    """One round, or the mean of some that follow one another.

    Attributes:
        round: the last of them.
        learned: after it, of those who had done tasks by then.
    """

    round: int
    loss: float
    seconds: float
    learned: Learned


@dataclass(frozen=True, slots=True)
class Measured:
    """The metrics of a version."""

    round: int
    metrics: Mapping[str, float]


@dataclass(slots=True)
class _Applied:
    """Tasks of one worker that were applied, and since which round it does some."""

    first_round: int
    tasks: int = 0
    seconds: float = 0.0


class History:
    """What happened in a run, in bounded memory. Owned by whoever feeds it: no lock.

    Args:
        radius_constant: factor of the confidence radius, see `settings.RunSettings.radius_constant`.

    Attributes:
        rounds: curve of the rounds; measured: of the evaluations.
        latest: rounds one by one, the newest last.
    """

    def __init__(self, radius_constant: float) -> None:
        self.rounds: Thinned[RoundPoint] = Thinned(_mean_point)
        self.measured: Thinned[Measured] = Thinned(lambda _, __, later, ___: later)
        self.latest: deque[RoundRecord] = deque()
        self._bars = 0
        self._closed_s = 0.0
        self._shift_s = 0.0
        self._radius_constant = radius_constant
        self._applied: dict[WorkerName, _Applied] = {}

    def add(self, record: RoundRecord) -> RoundRecord:
        """Take a committed round.

        Returns:
            it, on one clock for all lives of the server, on which the time without one does not count.
        """
        if record.opened_s + self._shift_s < self._closed_s - _SAME_S:
            self._shift_s = self._closed_s - record.opened_s
        record = replace(record, opened_s=record.opened_s + self._shift_s)
        self._closed_s = record.opened_s + record.seconds
        for worker in record.workers:
            if worker.used:
                self._apply(worker.name, record.round, worker.used, worker.used_s)
        learned = self.learned(record.round) if self.rounds.completes else _NOTHING
        self.rounds.add(RoundPoint(record.round, record.loss, record.seconds, learned))
        self.latest.append(record)
        self._bars += len(record.workers)
        while len(self.latest) > MOST_ROUNDS or (self._bars > MOST_BARS and len(self.latest) > 1):
            self._bars -= len(self.latest.popleft().workers)
        return record

    def curve(self) -> list[RoundPoint]:
        """Give the points of the rounds' curve, and what there is of a further one."""
        unfinished = [replace(point, learned=self.learned(point.round)) for point in self.rounds.unfinished]
        return self.rounds.points + unfinished

    def evaluated(self, version: int, metrics: Mapping[str, float]) -> None:
        """Take the metrics of a version."""
        self.measured.add(Measured(version, dict(metrics)))

    @property
    def learners(self) -> list[WorkerName]:
        """Name the workers that have done tasks, in the order in which they first did; a list that only grows."""
        return list(self._applied)

    def learned(self, number: int) -> Learned:
        """Give what the applied tasks of each worker tell of its speed after this round.

        The mean of their seconds and ATA-Empirical's radius, as status shows it; that also knows of wasted tasks.
        """
        if not self._applied:
            return _NOTHING
        applied = self._applied.values()
        tasks = np.array([worker.tasks for worker in applied], dtype=np.int64)
        seconds = np.array([worker.seconds for worker in applied])
        own_rounds = np.array([number + 1 - worker.first_round + 1 for worker in applied])
        radius_s = ata_empirical_radius_s(tasks, seconds, own_rounds, self._radius_constant)
        return np.stack((seconds / tasks, radius_s), axis=1, dtype=np.float32)

    def _apply(self, name: WorkerName, number: int, tasks: int, seconds: float) -> None:
        mine = self._applied.get(name)
        if mine is None:
            if len(self._applied) >= MOST_LEARNED:
                return
            mine = self._applied[name] = _Applied(number)
        mine.tasks += tasks
        mine.seconds += seconds


def _mean_point(first: RoundPoint, rounds: int, second: RoundPoint, more: int) -> RoundPoint:
    def mean(one: float, other: float) -> float:
        if math.isfinite(one) and math.isfinite(other):
            return (rounds * one + more * other) / (rounds + more)
        return other if math.isfinite(other) else one

    loss, seconds = mean(first.loss, second.loss), mean(first.seconds, second.seconds)
    return RoundPoint(second.round, loss, seconds, second.learned)
