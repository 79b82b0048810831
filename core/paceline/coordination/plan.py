"""What a policy is shown and what it may answer: the one seam between learning and machinery.

A `Plan` can say everything that the published schemes need (architecture.md, "The round", 1):

    scheme                        quota        refill  cancel  late work        allocation
    ATA, uniform, fixed           all tasks    no      -       dropped          by score
    CMAB                          r            no      -       dropped          1 for each of r workers
    greedy/Rennala, K-batch-sync  B            yes     yes     dropped          1 each
    K-sync, backup workers        K, n-b       no      yes     dropped          1 each, also who comes free later
    K-async                       K            no      no      applied          1 for each free worker
    K-batch-async, ASGD           K, 1         yes     no      applied          1 for each free worker
    Ringmaster                    1            yes     no      applied below R  1 for each free worker
    Malenia                       harmonic     yes     yes     dropped          1 each, weighed by what each did
    MindFlayer                    trials       no      -       dropped          by policy, with time limits

A policy is pure: no clock, no I/O; chance comes from the generator that it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from paceline.coordination.ids import WorkerName

Share: TypeAlias = str
"""Whose a task is in the counts that fill a quota: its worker's name or, where data belong to workers, its part's."""

Json: TypeAlias = "Mapping[str, Json] | Sequence[Json] | str | int | float | bool | None"
"""Plain data: dicts, lists, strings, whole numbers of any size, finite floats, bools and None; to be read only."""

PolicyState: TypeAlias = Mapping[str, Json]
"""What a policy keeps: it survives `json.dumps` and `json.loads`."""


def part_name(part: int) -> Share:
    """Name a part of the data."""
    return f"part {part}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerView:
    """What a policy may know of one worker.

    Attributes:
        tasks_done: tasks finished by this name on this device, K_i in the papers.
        busy_s: seconds they took, T_i.
        rounds: rounds since this worker joined, the present one included (1-based); equals the round
            number for a founder.
        founder: joined before round 1 was planned.
        part: the part of the data that it draws from, where data belong to workers.
    """

    name: WorkerName
    tasks_done: int
    busy_s: float
    rounds: int
    founder: bool
    part: int | None = None


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

    def missing(self, kept: Mapping[Share, int], in_flight: int) -> int:
        """Return how many more tasks must be started, given those kept and those in flight (0: none).

        With `in_flight` 0 the answer is 0 exactly when the kept tasks suffice.
        """
        ...

    def wants(self, share: Share, kept: Mapping[Share, int]) -> bool:
        """Tell whether one more task of this share is of use while the quota is open."""
        ...


@dataclass(frozen=True, slots=True)
class Count:
    """Enough are `tasks` tasks, whoever did them."""

    tasks: int

    def missing(self, kept: Mapping[Share, int], in_flight: int) -> int:
        """See `Quota.missing`."""
        return max(0, self.tasks - sum(kept.values()) - in_flight)

    def wants(self, share: Share, kept: Mapping[Share, int]) -> bool:
        """See `Quota.wants`."""
        del share, kept
        return True


@dataclass(frozen=True, slots=True)
class Exactly:
    """Enough are just so many tasks of each share: what a weighed round has become when its quota was met."""

    tasks: Mapping[Share, int]

    def missing(self, kept: Mapping[Share, int], in_flight: int) -> int:
        """See `Quota.missing`."""
        return max(0, sum(max(0, tasks - kept.get(share, 0)) for share, tasks in self.tasks.items()) - in_flight)

    def wants(self, share: Share, kept: Mapping[Share, int]) -> bool:
        """See `Quota.wants`."""
        return kept.get(share, 0) < self.tasks.get(share, 0)


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
        join_in: whoever comes free in the open round and had no task in it is given one.
        limits_s: a task of this worker that takes longer is given up and counts as a trial that failed.
        weigh: gives, when the quota is met, the factor of each share's contributions, by the tasks kept of each; no
            share can have more after that. None: 1 each.
        divisor_tasks: the sum is divided by the samples of so many tasks; None: by the (weighed) samples in it.
        scalars: names of numbers that the shell computes at the update, see `SCALARS`.
        mark: the parameters that this round starts from are what "distance" is measured from, until the next mark.
        reason: why, in words, for `paceline status` and the log.
    """

    allocation: Mapping[WorkerName, int]
    quota: Quota
    reason: str
    refill: bool = False
    cancel: bool = False
    max_staleness: int | None = 0
    join_in: bool = False
    limits_s: Mapping[WorkerName, float] = field(default_factory=dict)
    weigh: Callable[[Mapping[Share, int]], Mapping[Share, float]] | None = None
    divisor_tasks: float | None = None
    scalars: tuple[str, ...] = ()
    mark: bool = False

    @property
    def kept_in_advance(self) -> bool:
        """Every task can be promised its place in the sum when it is granted.

        True where nothing can overshoot: nobody is refilled or joins in, no time limit, no late work, and the quota
        asks for every task.
        """
        total = sum(self.allocation.values())
        return (
            not self.refill
            and not self.join_in
            and self.max_staleness == 0
            and not self.limits_s
            and self.weigh is None
            and self.quota.missing({}, total) == 0
            and self.quota.missing({}, total - 1) > 0
        )


SCALARS = {
    "inner-product": "of this update's averaged gradient and the one before; 0 at the first",
    "squared-norm": "of the averaged gradient",
    "variance": "of the contributions' gradients about their average, squared norm, unbiased; 0 for a single one",
    "distance": "squared, of the new parameters from the marked ones",
}


@dataclass(frozen=True, slots=True)
class Finished:
    """A task that a worker finished or ran into its limit with, used or not: the feedback of the bandit.

    Attributes:
        seconds: that it took; with `cut` it was given up after so long.
    """

    worker: WorkerName
    seconds: float
    cut: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """What a policy hears of an update.

    Attributes:
        version: the new one.
        loss: the round's mean loss.
        scalars: those that its plan asked for; none where the update was skipped, since its sum was not finite.
        finished: all tasks that ended in the round.
    """

    version: int
    loss: float
    scalars: Mapping[str, float]
    finished: tuple[Finished, ...] = ()


class Policy(Protocol):
    """A rule that plans rounds.

    All that decides later rounds and does not come with a view is its state: with the state of another of the same
    options a policy goes on as that one would have gone on, plan for plan.

    Attributes:
        name: as users say it.
        needs: round 1 waits for so many workers.
    """

    name: str

    @property
    def needs(self) -> int:
        """See the class."""
        ...

    def plan(self, view: View) -> Plan:
        """Plan the round, or (`view.again`) the tasks of the round that lost their holder.

        Returns:
            A plan whose allocation names only workers of the view. With `again` only its allocation is used.
        """
        ...

    def updated(self, update: Update) -> None:
        """Hear of an update."""
        ...

    def state(self) -> PolicyState:
        """Give what it keeps. Later changes of the policy do not show in it, and it is cheap: asked for each round."""
        ...

    def restore(self, state: PolicyState) -> None:
        """Go on from a state.

        Raises:
            UsageError: it is no state of this policy and its options; nothing was changed.
        """
        ...
