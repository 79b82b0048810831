"""Tiny policies for what a plan can say and no shipped policy says yet."""

from __future__ import annotations

from collections.abc import Mapping

from paceline.coordination import Count, Plan, View
from paceline.coordination.plan import Share, Update
from paceline.coordination.policies.shared import Deaf


class OneEach(Deaf):
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
        divisor_tasks: float | None = None,
    ) -> None:
        self.name = "one-each"
        self.updates: list[tuple[int, float, dict[str, float]]] = []
        self._quota = quota
        self._cancel = cancel
        self._refill = refill
        self._max_staleness = max_staleness
        self._weights = weights
        self._divisor_tasks = divisor_tasks

    def plan(self, view: View) -> Plan:
        workers = view.workers[: view.tasks] if view.again else view.workers
        return Plan(
            allocation={worker.name: 1 for worker in workers},
            quota=Count(self._quota if self._quota is not None else view.tasks),
            refill=self._refill,
            cancel=self._cancel,
            max_staleness=self._max_staleness,
            weigh=None if self._weights is None else self._weigh,
            divisor_tasks=self._divisor_tasks,
            scalars=("inner-product",),
            reason="one each",
        )

    def _weigh(self, counts: Mapping[Share, int]) -> Mapping[Share, float]:
        return {share: (self._weights or {}).get(share, 1.0) for share in counts}

    def updated(self, update: Update) -> None:
        self.updates.append((update.version, update.loss, dict(update.scalars)))


class Trials(Deaf):
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
            limits_s={worker.name: self._limit_s for worker in view.workers},
            reason=f"{self._trials} trials each",
        )
