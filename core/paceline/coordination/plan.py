"""What a policy is shown and what it may answer: the one seam between learning and machinery.

A `Plan` can say everything that the published schemes need (architecture.md, "The round", 1):

    scheme                        quota        refill  cancel  late work        allocation
    ATA, uniform, fixed           all tasks    no      -       dropped          by score
    CMAB                          r            no      -       dropped          1 for each of r workers
    greedy/Rennala, K-batch-sync  B            yes     yes     dropped          1 each
    K-sync, backup workers        K, n-b       no      yes     dropped          1 each
    K-async                       K            no      no      applied          1 for each free worker
    K-batch-async, ASGD           K, 1         yes     no      applied          1 for each free worker
    Ringmaster                    1            yes     no      applied up to R  1 for each free worker
    Malenia                       harmonic     yes     yes     dropped          1 each, with weights
    MindFlayer                    trials       no      -       dropped          by policy, with a time limit

A policy is pure: no clock, no I/O; chance comes from the generator that it is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from paceline.coordination.ids import TaskId, WorkerName


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerView:
    """What a policy may know of one worker.

    Attributes:
        tasks_done: tasks finished by this name on this device, K_i in the papers.
        busy_s: seconds they took, T_i.
        rounds: rounds since this worker joined, the present one included (1-based); equals the round
            number for a founder.
        founder: joined before round 1 was planned.
    """

    name: WorkerName
    tasks_done: int
    busy_s: float
    rounds: int
    founder: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The situation that a policy plans for.

    Attributes:
        round: 1-based number of the round.
        tasks: B, the settings' tasks per round; when `again` is set, the number of tasks to be planned again.
        workers: the workers that may be given tasks now, in the order of their first round, then
            by name (shorter ones first): w2 stands before w10.
        joined: number of workers that belong to the run at this moment, free or not.
        again: tasks of the present round that lost their holder are being planned again.
    """

    round: int
    tasks: int
    workers: tuple[WorkerView, ...]
    joined: int
    again: bool = False


class Quota(Protocol):
    """When a round has enough kept tasks. The machine asks only this."""

    def missing(self, kept: Mapping[WorkerName, int], in_flight: int) -> int:
        """Return how many more tasks must be started, given those kept and those in flight (0: none).

        With `in_flight` 0 the answer is 0 exactly when the kept tasks suffice.
        """
        ...


@dataclass(frozen=True, slots=True)
class Count:
    """Enough are `tasks` tasks, whoever did them."""

    tasks: int

    def missing(self, kept: Mapping[WorkerName, int], in_flight: int) -> int:
        """See `Quota.missing`."""
        return max(0, self.tasks - sum(kept.values()) - in_flight)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One round, as its policy wants it.

    Attributes:
        allocation: tasks per worker; workers that are not named get none.
        quota: when enough tasks are kept.
        refill: a worker that finishes while the quota is open gets another task of this round.
        cancel: work that is in flight when the quota is full is cancelled; else it goes on into later rounds.
        max_staleness: a result of an older version is kept if it is at most this many versions behind;
            0 drops all late work, None keeps all.
        task_limit_s: a task that takes longer is given up by its worker and counts as a trial that failed.
        weights: factor of each worker's contribution in the sum, 1 where not named.
        divisor: the sum is divided by this, None means by the samples in it.
        scalars: names of numbers that the shell computes at the update and hands to `Policy.updated`
            ("inner-product", "distance").
        reason: why, in words, for `paceline status` and the log.
    """

    allocation: Mapping[WorkerName, int]
    quota: Quota
    reason: str
    refill: bool = False
    cancel: bool = False
    max_staleness: int | None = 0
    task_limit_s: float | None = None
    weights: Mapping[WorkerName, float] = field(default_factory=dict)
    divisor: float | None = None
    scalars: tuple[str, ...] = ()

    @property
    def kept_in_advance(self) -> bool:
        """Every task can be promised its place in the sum when it is granted.

        True where nothing can overshoot: no refill, no time limit, no late work, and the quota asks for every task.
        """
        total = sum(self.allocation.values())
        return (
            not self.refill
            and self.max_staleness == 0
            and self.task_limit_s is None
            and self.quota.missing({}, total) == 0
            and self.quota.missing({}, total - 1) > 0
        )


@dataclass(frozen=True, slots=True)
class Finished:
    """A task that a worker finished in a round, used or not: the feedback of the bandit."""

    worker: WorkerName
    task: TaskId
    seconds: float


class Policy(Protocol):
    """A rule that plans rounds."""

    name: str

    def plan(self, view: View) -> Plan:
        """Plan the round, or (`view.again`) the tasks of the round that lost their holder.

        Returns:
            A plan whose allocation names only workers of the view. With `again` only its allocation is used.
        """
        ...

    def updated(self, version: int, loss: float, scalars: Mapping[str, float]) -> None:
        """Hear of an update: the new version, the round's mean loss and the scalars asked for."""
        ...
