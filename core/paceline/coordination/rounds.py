"""The round in progress and its accounts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from paceline.coordination.effects import WorkerRecord
from paceline.coordination.ids import LeaseId, TaskId, WorkerName
from paceline.coordination.members import Statistics
from paceline.coordination.plan import Finished, Plan, PolicyState, Quota, Share
from paceline.round_sums import GivenSums


@dataclass(slots=True)
class Account:
    """What one worker did in a round."""

    planned: int = 0
    used: int = 0
    wasted: int = 0
    replanned: int = 0
    used_s: float = 0.0
    wasted_s: float = 0.0
    data_s: float = 0.0
    last_s: float | None = None

    def record(self, name: WorkerName, now: float) -> WorkerRecord:
        """Close the account."""
        return WorkerRecord(
            name=name,
            planned=self.planned,
            used=self.used,
            wasted=self.wasted,
            replanned=self.replanned,
            used_s=self.used_s,
            wasted_s=self.wasted_s,
            data_s=self.data_s,
            idle_s=0.0 if self.last_s is None else now - self.last_s,
        )


@dataclass(slots=True, kw_only=True)
class Round:
    """One round, from its plan to its update.

    Attributes:
        number: 1-based; the update makes this version.
        policy_before: what the policy kept before it planned the round.
        quota: the plan's; where contributions are weighed, just what was kept when it was met.
        weights: of each share's contributions, where they are weighed.
        counts: tasks that fill the quota, by share: kept ones, and trials that ran into the time limit.
        awaiting: leases with kept tasks whose contribution is not verified.
        full: the quota is met: nothing more is kept; the round waits for the contributions of what is.
        updating: the update is ordered.
        finished: every task that ended in the round, and the statistics that it belongs to: the bandit's feedback.
        divisor: what the sum is divided by, once the update is ordered; None: the samples in it.
        lost: tasks of the round that lost their holder; when they are handed out again they count as planned again.
        granted: tasks given to each worker in this round, planned again ones included.
        losses: loss sums of the verified tasks.
        sums: further sums of theirs.
        stale: the counts have changed since the quota was last asked.
    """

    number: int
    plan: Plan
    policy_before: PolicyState
    in_advance: bool
    opened_s: float
    allocation: tuple[tuple[WorkerName, int], ...]
    quota: Quota
    weights: Mapping[Share, float] = field(default_factory=dict)
    counts: dict[Share, int] = field(default_factory=dict)
    lost: set[TaskId] = field(default_factory=set)
    granted: dict[WorkerName, int] = field(default_factory=dict)
    awaiting: set[LeaseId] = field(default_factory=set)
    full: bool = False
    updating: bool = False
    tasks: int = 0
    samples: int = 0
    losses: list[float] = field(default_factory=list)
    sums: GivenSums = field(default_factory=GivenSums)
    weighed_samples: float = 0.0
    divisor: float | None = None
    finished: list[tuple[Statistics, Finished]] = field(default_factory=list)
    stale: bool = True

    def count(self, share: Share, tasks: int) -> None:
        """Add to (or take from) the tasks that fill the quota."""
        self.stale = True
        total = self.counts.get(share, 0) + tasks
        if total:
            self.counts[share] = total
        else:
            self.counts.pop(share, None)
