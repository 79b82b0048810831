"""Puts the real machine on a stage: a test says what happens, step by step, and looks at what the machine orders."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

from paceline.coordination import Machine, MachineSettings, Policy
from paceline.coordination.effects import (
    AddContribution,
    ApplyUpdate,
    Effect,
    LeaseRecord,
    RefusePush,
    RoundRecord,
    SendLease,
    StagePush,
)
from paceline.coordination.events import (
    ContributionOffered,
    ContributionVerified,
    DrainRequested,
    Event,
    Heard,
    Hello,
    LeaseEnded,
    PauseRequested,
    Ready,
    SessionClosed,
    TaskFailed,
    TaskFailure,
    TaskReported,
    TaskResult,
    Tick,
    UpdateApplied,
)
from paceline.coordination.ids import Incarnation, LeaseId, PushId, SessionId, TaskId, WorkerName
from paceline.coordination.policies import PolicyOptions, make_policy
from paceline.tasks import is_validation
from tests.coordination.checked import Checked

E = TypeVar("E")


def of(effects: Iterable[Effect], kind: type[E]) -> list[E]:
    """Give the effects of one kind."""
    return [effect for effect in effects if isinstance(effect, kind)]


def one(effects: Iterable[Effect], kind: type[E]) -> E:
    """Give the only effect of one kind."""
    found = of(effects, kind)
    assert len(found) == 1, f"{len(found)} of {kind.__name__} in {effects}"
    return found[0]


def result(task: int, seconds: float = 1.0) -> TaskResult:
    return TaskResult(task=TaskId(task), seconds=seconds, loss_sum=float(task), samples=2)


class Scene:
    """A machine with a clock that stands still unless the test moves it; the model is updated as soon as ordered.

    Args:
        policy: a policy, or the name of one; "fixed" gives all workers called a, b, ... the same mean.
        settings: of the machine, see MachineSettings.
    """

    def __init__(self, policy: Policy | str = "fixed", *, updates: bool = True, **settings: Any) -> None:
        if isinstance(policy, str):
            means_s = dict.fromkeys("abcdefgh", 1.0)
            policy = make_policy(policy, PolicyOptions(means_s=means_s), rng=np.random.default_rng(0))
        self.machine = Checked(
            Machine(MachineSettings(**{"tasks": 4, "clock_slack_s": 1e6, **settings}), policy), keep=True
        )
        self.now = 0.0
        self.log: list[Effect] = []
        self._updates = updates
        self._sessions = 0
        self._pushes = 0
        self._refused: set[LeaseId] = set()

    def do(self, event: Event) -> list[Effect]:
        """Let one event happen."""
        effects = self.machine.step(event, self.now)
        self.log += effects
        for order in of(effects, ApplyUpdate) if self._updates else []:
            effects = effects + self.do(UpdateApplied(version=order.version, loss=order.loss))
        return effects

    def wait(self, seconds: float) -> list[Effect]:
        """Let time pass; the machine's timers strike as they come due."""
        effects: list[Effect] = []
        end = self.now + seconds
        for _ in range(1000):
            deadline = self.machine.deadline
            if deadline is None or deadline > end:
                self.now = end
                return effects
            self.now = max(self.now, deadline)
            effects += self.do(Tick())
        raise AssertionError(f"the deadline stays at {self.machine.deadline}")

    def join(self, name: str, incarnation: str | None = None) -> Worker:
        """A worker comes and is ready."""
        worker = self.newcomer(name, incarnation)
        worker.ready()
        return worker

    def newcomer(self, name: str, incarnation: str | None = None) -> Worker:
        """A worker says hello."""
        worker = Worker(self, name, incarnation or f"{name}1")
        worker.hello()
        return worker

    def session(self) -> SessionId:
        self._sessions += 1
        return SessionId(self._sessions)

    def push(self) -> PushId:
        self._pushes += 1
        return PushId(self._pushes)

    def refuse(self, lease: LeaseId) -> None:
        self._refused.add(lease)

    def verify(self, push: PushId) -> list[Effect]:
        return self.do(ContributionVerified(push))

    @property
    def over(self) -> set[LeaseId]:
        """Leases that need no more work of a round: recorded, taken or refused, or there to measure."""
        measuring = {order.lease for order in of(self.log, SendLease) if is_validation(order.tasks[0])}
        ended = {effect.lease for effect in self.log if isinstance(effect, AddContribution | LeaseRecord)}
        return self._refused | measuring | ended

    def finish_round(self, *workers: Worker) -> None:
        """Let these workers do whatever they still hold of the round."""
        number = len(self.rounds)
        for _ in range(100):
            for worker in workers:
                for order in [order for order in worker.leases if order.lease not in self.over]:
                    if len(self.rounds) == number:
                        worker.work(order)
            if len(self.rounds) > number:
                return
        raise AssertionError("the round does not end")

    @property
    def rounds(self) -> list[RoundRecord]:
        return of(self.log, RoundRecord)

    def applied(self) -> list[list[int]]:
        """The task ids of each round, by the records of leases."""
        kept: dict[int, list[int]] = {}
        for record in of(self.log, LeaseRecord):
            kept.setdefault(record.round, []).extend(record.kept)
        return [sorted(kept[number]) for number in sorted(kept)]


class Worker:
    """One incarnation; what it says is what the test makes it say."""

    def __init__(self, scene: Scene, name: str, incarnation: str) -> None:
        self.scene = scene
        self.name = WorkerName(name)
        self.incarnation = Incarnation(incarnation)
        self.session = SessionId(0)
        self.told: list[Effect] = []

    def hello(self, leases: Sequence[LeaseId] = ()) -> list[Effect]:
        """Open a new session."""
        self.session = self.scene.session()
        self.told = self.scene.do(
            Hello(
                session=self.session,
                name=self.name,
                incarnation=self.incarnation,
                address=f"host pid {self.incarnation}",
                device="cpu",
                leases=tuple(leases),
            )
        )
        return self.told

    def ready(self) -> list[Effect]:
        return self.scene.do(Ready(self.session))

    def cut(self) -> list[Effect]:
        return self.scene.do(SessionClosed(self.session))

    def drain(self) -> list[Effect]:
        return self.scene.do(DrainRequested(self.session))

    def pause(self, *, paused: bool = True) -> list[Effect]:
        return self.scene.do(PauseRequested(self.name, paused))

    def beat(self, *, progress: bool = False) -> list[Effect]:
        return self.scene.do(Heard(self.incarnation, progress))

    @property
    def leases(self) -> list[SendLease]:
        """All leases that were ever sent to this incarnation's present session."""
        return [order for order in of(self.scene.log, SendLease) if order.session == self.session]

    @property
    def lease(self) -> SendLease:
        """The latest of them."""
        assert self.leases, f"{self.name} has no lease"
        return self.leases[-1]

    def report(self, task: int, lease: SendLease | None = None, seconds: float = 1.0) -> list[Effect]:
        order = lease or self.lease
        return self.scene.do(TaskReported(self.session, order.lease, result(task, seconds)))

    def fail(self, task: int, failure: TaskFailure = TaskFailure.EXCEPTION, seconds: float = 1.0) -> list[Effect]:
        failed = TaskFailed(
            session=self.session,
            lease=self.lease.lease,
            task=TaskId(task),
            failure=failure,
            seconds=seconds,
            message="boom",
            traceback_text=f"Traceback of {self.name}",
        )
        return self.scene.do(failed)

    def end(self, lease: SendLease | None = None, wasted_s: float = 0.0) -> list[Effect]:
        return self.scene.do(LeaseEnded(self.session, (lease or self.lease).lease, wasted_s))

    def next_lease(self) -> SendLease:
        """The oldest lease that still needs work."""
        return next(order for order in self.leases if order.lease not in self.scene.over)

    def offer(self, tasks: Iterable[int] | None = None, lease: SendLease | None = None, **changes: Any) -> list[Effect]:
        """Announce a push of the lease's tasks (or of some)."""
        order = lease or self.lease
        fields: dict[str, Any] = {
            "push": self.scene.push(),
            "lease": order.lease,
            "incarnation": self.incarnation,
            "version": order.version,
            "results": tuple(result(task) for task in (order.tasks if tasks is None else tasks)),
        }
        effects = self.scene.do(ContributionOffered(**{**fields, **changes}))
        if of(effects, RefusePush):
            self.scene.refuse(order.lease)
        return effects

    def deliver(self, tasks: Iterable[int] | None = None, lease: SendLease | None = None) -> list[Effect]:
        """Push and have it verified."""
        effects = self.offer(tasks, lease)
        return effects + self.scene.verify(one(effects, StagePush).push)

    def work(self, lease: SendLease | None = None) -> list[Effect]:
        """Do a lease that is kept in advance: report all its tasks and push."""
        order = lease or self.lease
        effects = [effect for task in order.tasks for effect in self.report(task, order)]
        return effects + self.deliver(lease=order)
