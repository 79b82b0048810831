"""Tiny policies for what a plan can say and no shipped policy says yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from paceline.coordination import Count, Plan, View
from paceline.coordination.ids import WorkerName


class OneEach:
    """K-sync and its family: one task for each free worker, the first `quota` results count.

    Args:
        cancel: work in flight when the quota is full is cancelled, else it goes on into later rounds.
        refill: a worker that is done gets another task of the round.
        max_staleness: see Plan.
        weights: see Plan.
    """

    def __init__(
        self,
        quota: int | None,
        *,
        cancel: bool = True,
        refill: bool = False,
        max_staleness: int | None = 0,
        weights: Mapping[str, float] | None = None,
        divisor: float | None = None,
    ) -> None:
        self.name = "one-each"
        self.updates: list[tuple[int, float, dict[str, float]]] = []
        self._quota = quota
        self._cancel = cancel
        self._refill = refill
        self._max_staleness = max_staleness
        self._weights = {WorkerName(name): weight for name, weight in (weights or {}).items()}
        self._divisor = divisor

    def plan(self, view: View) -> Plan:
        workers = view.workers[: view.tasks] if view.again else view.workers
        return Plan(
            allocation={worker.name: 1 for worker in workers},
            quota=Count(self._quota if self._quota is not None else view.tasks),
            refill=self._refill,
            cancel=self._cancel,
            max_staleness=self._max_staleness,
            weights=self._weights,
            divisor=self._divisor,
            scalars=("inner-product",),
            reason="one each",
        )

    def updated(self, version: int, loss: float, scalars: Mapping[str, float]) -> None:
        self.updates.append((version, loss, dict(scalars)))


@dataclass(frozen=True)
class Harmonic:
    """Malenia's stop: the harmonic mean of the workers' counts reaches `level`, every worker having one at least."""

    workers: tuple[WorkerName, ...]
    level: float

    def missing(self, kept: Mapping[WorkerName, int], in_flight: int) -> int:
        counts = [kept.get(name, 0) for name in self.workers]
        if all(counts) and len(counts) / sum(1.0 / count for count in counts) >= self.level:
            return 0
        return max(0, 1 - in_flight) if all(counts) else max(0, sum(not count for count in counts) - in_flight)


class Malenia:
    """One task for each worker at a time until the harmonic stop; each worker's sum is weighted."""

    name = "malenia"

    def __init__(self, workers: tuple[str, ...], level: float) -> None:
        self._quota = Harmonic(tuple(WorkerName(name) for name in workers), level)

    def plan(self, view: View) -> Plan:
        return Plan(
            allocation={worker.name: 1 for worker in view.workers},
            quota=self._quota,
            refill=True,
            cancel=True,
            weights={worker.name: 1.0 / (1 + number) for number, worker in enumerate(view.workers)},
            divisor=float(len(view.workers)),
            reason="until the harmonic mean is reached",
        )

    def updated(self, version: int, loss: float, scalars: Mapping[str, float]) -> None:
        del version, loss, scalars


class Trials:
    """MindFlayer: a number of trials for each worker, each cut off after a time limit.

    Args:
        limit_s: of a trial; trials that run into it count for the quota and give nothing.
    """

    name = "mindflayer"

    def __init__(self, trials: int, limit_s: float) -> None:
        self._trials = trials
        self._limit_s = limit_s

    def plan(self, view: View) -> Plan:
        n = len(view.workers)
        if view.again:
            allocation = {view.workers[number % n].name: 0 for number in range(view.tasks)}
            for number in range(view.tasks):
                allocation[view.workers[number % n].name] += 1
            return Plan(allocation=allocation, quota=Count(view.tasks), reason="again")
        return Plan(
            allocation={worker.name: self._trials for worker in view.workers},
            quota=Count(self._trials * n),
            task_limit_s=self._limit_s,
            reason=f"{self._trials} trials each",
        )

    def updated(self, version: int, loss: float, scalars: Mapping[str, float]) -> None:
        del version, loss, scalars
