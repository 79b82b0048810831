"""Everything the coordinator knows, and the few moves that all handlers share.

The handlers (joining, working, pushing, planning, timing) are functions over a `State`; `Machine.step` gives each event
to one of them and then lets `planning.advance` draw the consequences. Effects gather in `out`, in order.
"""

from __future__ import annotations

import bisect
import heapq
import math
from collections import deque
from dataclasses import dataclass, field, replace

from paceline.coordination.cut import Attempt
from paceline.coordination.effects import (
    Effect,
    Finish,
    LeaseRecord,
    LeaseVerdict,
    Outcome,
    SendGrant,
    SendLease,
    WorkerChanged,
)
from paceline.coordination.events import TaskResult
from paceline.coordination.ids import LEASES_PER_LIFE, Incarnation, LeaseId, PushId, SessionId, TaskId, WorkerName
from paceline.coordination.leases import Lease
from paceline.coordination.machine_settings import MachineSettings
from paceline.coordination.members import Member, Statistics
from paceline.coordination.plan import Policy
from paceline.coordination.queue import TaskQueue
from paceline.coordination.rounds import Account, Round
from paceline.errors import PacelineError
from paceline.tasks import is_validation

# Of workers that are gone so many names are remembered.
NAMES_KEPT = 10_000


class MachineError(PacelineError):
    """Our own shell broke a rule of the machine; nothing was changed. The message tells the recent story."""


@dataclass(frozen=True, slots=True)
class Stop:
    """The run ends so at the close of its round, or at the time `by`, whichever comes first."""

    outcome: Outcome
    reason: str
    by: float


@dataclass(slots=True)
class Saving:
    """What was saved last, or tried to be, and when; `busy` while it is, `wanted` if another is to follow at once."""

    version: int = 0
    at: float = 0.0
    busy: bool = False
    wanted: bool = False


@dataclass(slots=True)
class Measuring:
    """A version that workers measure; see validating.py.

    Attributes:
        todo: tasks that nobody has, ascending.
        judging: all results are in; the shell makes metrics of them.
    """

    version: int
    begun: float
    todo: list[TaskId]
    results: dict[TaskId, TaskResult] = field(default_factory=dict)
    attempts: dict[TaskId, list[Attempt]] = field(default_factory=dict)
    judging: bool = False


@dataclass(slots=True)
class Push:
    """A push that was allowed to be staged."""

    lease: LeaseId
    incarnation: Incarnation
    results: tuple[TaskResult, ...]
    wasted_s: float


@dataclass(slots=True)
class Conduct:
    """What is held against a name; see conduct.py.

    Attributes:
        refused: contributions, in all.
        aside_until: gets no tasks before this time, for the reason `why`.
        paused: gets none until somebody says otherwise; that is no fault of it.
    """

    refused: int = 0
    aside_until: float = 0.0
    why: str = ""
    paused: bool = False


@dataclass(slots=True)
class Departed:
    """A worker that is gone, as status shows it."""

    state: str
    address: str
    device: str
    pace: float | None


@dataclass(slots=True)
class State:
    """See the module. `now` and `out` belong to the step in progress.

    Attributes:
        members: live incarnations by name; `sessions` and `incarnations` the same otherwise; `claims` newcomers'.
        departed: names without a live incarnation, for status.
        statistics: by (name, device).
        conduct: by name, of those against whom something is held.
        leases: all live leases.
        next_tasks, returned: the task streams' position at the last commit.
        measured: the last version that workers measured; `measuring` the one that they are at.
        alone_since: when the last worker was gone; None while there is one.
        attempts: failed attempts by task, until the task is applied.
        retries: failed tasks that wait for a worker that has not failed them.
        freed: names that may have become free since `advance` last looked.
        short: tasks of the round may have lost their holder.
        undecided: finished tasks on which the next round decides, in the order of their reports.
        accounts, records: per worker and of ended leases, from the last commit to the next.
    """

    settings: MachineSettings
    policy: Policy
    queue: TaskQueue
    now: float = 0.0
    out: list[Effect] = field(default_factory=list)
    version: int = 0
    next_tasks: tuple[int, ...] = ()
    returned: tuple[TaskId, ...] = ()
    saving: Saving = field(default_factory=Saving)
    round: Round | None = None
    measured: int = 0
    measuring: Measuring | None = None
    outcome: Outcome | None = None
    stop: Stop | None = None
    alone_since: float | None = 0.0
    reason: str = ""
    members: dict[WorkerName, Member] = field(default_factory=dict)
    sessions: dict[SessionId, Member] = field(default_factory=dict)
    claims: dict[SessionId, Member] = field(default_factory=dict)
    incarnations: dict[Incarnation, Member] = field(default_factory=dict)
    departed: dict[WorkerName, Departed] = field(default_factory=dict)
    statistics: dict[tuple[WorkerName, str], Statistics] = field(default_factory=dict)
    conduct: dict[WorkerName, Conduct] = field(default_factory=dict)
    leases: dict[LeaseId, Lease] = field(default_factory=dict)
    pushes: dict[PushId, Push] = field(default_factory=dict)
    attempts: dict[TaskId, list[Attempt]] = field(default_factory=dict)
    retries: set[TaskId] = field(default_factory=set)
    freed: dict[WorkerName, None] = field(default_factory=dict)
    short: bool = False
    undecided: list[tuple[LeaseId, TaskId]] = field(default_factory=list)
    accounts: dict[WorkerName, Account] = field(default_factory=dict)
    records: list[LeaseRecord] = field(default_factory=list)
    last_granted: dict[WorkerName, int] = field(default_factory=dict)
    timers: list[tuple[float, WorkerName]] = field(default_factory=list)
    story: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=32))
    next_lease: int = 0

    @property
    def updating(self) -> bool:
        """An update is ordered and not made yet."""
        return self.round is not None and self.round.updating

    @property
    def first_workers(self) -> int:
        """Round 1 waits for so many."""
        return max(self.settings.min_workers, self.policy.needs, self.settings.parts)

    def vacant_parts(self) -> list[int]:
        """List the parts of the data that have no worker: no round can do without them."""
        if (
            not self.settings.parts
        ):  # Asked at every event of a round that refills: no walk over the members for nothing.
            return []
        taken = {member.part for member in self.members.values()}
        return [part for part in range(self.settings.parts) if part not in taken]

    def account(self, worker: WorkerName) -> Account:
        """Give a worker's account since the last commit."""
        account = self.accounts.get(worker)
        if account is None:
            account = self.accounts[worker] = Account()
        return account

    def learned(self, member: Member) -> Statistics:
        """Give what is known of a member's name on its device; made at its first readiness."""
        return self.statistics[member.name, member.device]

    def conduct_of(self, worker: WorkerName) -> Conduct:
        """Give what is held against a name, to be added to; of too many the one goes that is over the longest."""
        known = self.conduct.get(worker)
        if known is None:
            if len(self.conduct) >= NAMES_KEPT:
                del self.conduct[min(self.conduct, key=self._held_least)]
            known = self.conduct[worker] = Conduct()
        return known

    def _held_least(self, worker: WorkerName) -> tuple[bool, float]:
        return self.conduct[worker].paused, self.conduct[worker].aside_until

    def waste(self, worker: WorkerName, seconds: float, tasks: int = 0) -> None:
        """Charge worker seconds that were not used."""
        account = self.account(worker)
        account.wasted_s += seconds
        account.wasted += tasks

    def arm(self, member: Member, at: float) -> None:
        """Make sure that the machine looks at a member at this time."""
        if at < member.timer_at and at < math.inf:
            member.timer_at = at
            heapq.heappush(self.timers, (at, member.name))

    def changed(self, member: Member, state: str, reason: str) -> None:
        """Tell of a change in a worker's life."""
        self.out.append(WorkerChanged(name=member.name, incarnation=member.incarnation, state=state, reason=reason))

    def open_lease(
        self, member: Member, tasks: list[TaskId], *, in_advance: bool = False, measures: bool = False
    ) -> Lease:
        """Grant tasks into a new lease at the present version and send it."""
        current = self.round
        if (current is None) != measures:
            raise MachineError("a lease was opened outside a round, or one that measures inside")
        lease = Lease(
            id=LeaseId(self.settings.life * LEASES_PER_LIFE + self.next_lease),
            worker=member.name,
            incarnation=member.incarnation,
            share=member.share,
            version=self.version,
            in_advance=in_advance,
            task_limit_s=None if current is None else current.plan.limits_s.get(member.name),
            opened_s=self.now,
            measures=measures,
        )
        self.next_lease += 1
        self._start(member, lease, tasks)
        member.leases[lease.id] = self.leases[lease.id] = lease
        self.send_lease(member, lease)
        return lease

    def send_lease(self, member: Member, lease: Lease) -> None:
        """Say (or say again) what a lease holds."""
        if member.session is not None:
            self.out.append(
                SendLease(
                    session=member.session,
                    lease=lease.id,
                    version=lease.version,
                    tasks=tuple(lease.granted),
                    keep_in_advance=lease.in_advance,
                    push_unasked=lease.in_advance,
                    task_limit_s=lease.task_limit_s,
                )
            )

    def grant(self, member: Member, lease: Lease, tasks: list[TaskId]) -> None:
        """Grant further tasks into an open lease."""
        self._start(member, lease, tasks)
        if member.session is not None:
            self.out.append(SendGrant(member.session, lease.id, tuple(tasks)))

    def _start(self, member: Member, lease: Lease, tasks: list[TaskId]) -> None:
        if member.computing_since is None:
            member.computing_since = self.now
            member.progress_at = self.now
        lease.grant(tasks)
        if self.round is not None:
            self.round.granted[member.name] = self.round.granted.get(member.name, 0) + len(tasks)
            if lease.in_advance:
                self.round.count(lease.share, len(tasks))
                self.round.awaiting.add(lease.id)
        self.arm(member, self.now + self.settings.progress_s)

    def unkeep(self, lease: Lease, task: TaskId) -> None:
        """Take a task out of a lease's sum-to-be: its place in the round is open again."""
        del lease.kept[task]
        self.short = True
        if self.round is not None:
            self.round.count(lease.share, -1)
            if not lease.kept:
                self.round.awaiting.discard(lease.id)

    def end_lease(self, lease: Lease, verdict: LeaseVerdict) -> None:
        """End a lease that was not applied: what it held goes back, what it finished is wasted."""
        if self.round is not None:
            self.round.lost.update(lease.kept, lease.undecided, lease.running)
        for task in list(lease.kept):
            if task in lease.results:
                self.waste(lease.worker, lease.results[task].seconds, 1)
                lease.wasted_s += lease.results[task].seconds
            self.unkeep(lease, task)
            if task not in lease.running:
                self.put_back(task)
        for task in lease.undecided:
            self.waste(lease.worker, lease.results[task].seconds, 1)
            lease.wasted_s += lease.results[task].seconds
            self.put_back(task)
        for task in lease.give_up_running():
            self.short = True
            self.put_back(task)
        self.close_lease(lease, verdict, 1.0)

    def close_lease(self, lease: Lease, verdict: LeaseVerdict, weight: float) -> None:
        """Take a lease out of the books; its record is written with its round."""
        del self.leases[lease.id]
        member = self.members.get(lease.worker)
        if member is not None and member.incarnation == lease.incarnation:
            member.leases.pop(lease.id, None)
            if not member.running_tasks():
                member.computing_since = None
            self.freed[member.name] = None
        # Between rounds (nobody was free when a round without any result was closed) it belongs to the next one.
        number = self.round.number if self.round is not None else self.version + 1
        if not lease.measures:
            self.records.append(lease.record(number, self.now, weight, verdict))

    def put_back(self, task: TaskId) -> None:
        """Return an unused task: to those waiting for another worker if it has failed, else to the queue's head."""
        if is_validation(task):
            if self.measuring is not None:
                bisect.insort(self.measuring.todo, task)
        elif task in self.attempts:
            self.retries.add(task)
        else:
            self.queue.give_back(task)

    def finish(
        self, outcome: Outcome, reason: str, task: TaskId | None = None, detail: str = "", *, try_again: bool = False
    ) -> None:
        """End the run."""
        for lease in list(self.leases.values()):
            if not lease.measures:
                self.records.append(lease.record(self.version + 1, self.now, 1.0, LeaseVerdict.DROPPED))
        # The round will not be committed: what was verified for it is not applied.
        self.out += [replace(record, verdict=LeaseVerdict.DROPPED, kept=(), results=()) for record in self.records]
        self.records.clear()
        self.outcome = outcome
        self.reason = reason
        self.out.append(Finish(outcome, reason, task, detail, try_again))
