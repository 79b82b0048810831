"""Runs the coordinator on a virtual clock: what the server's shell does with events, effects and time, in one loop.

The machine is the real one; the server's shell, the network, the model and the workers are simulated. Everything is
decided by the seed. Rules: the machine is never stepped inside a step, effects are carried out in order, effects to a
closed session are dropped, and messages of one session (or of one worker's pushes) stay in order.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Protocol, cast

import numpy as np

from paceline.coordination.effects import (
    AcknowledgePush,
    AddContribution,
    ApplyUpdate,
    CloseSession,
    Effect,
    Finish,
    Goodbye,
    LeaseRecord,
    Probe,
    Refuse,
    RefusePush,
    RoundPlanned,
    RoundRecord,
    SendCancel,
    SendCollect,
    SendGrant,
    SendLease,
    SendVerdict,
    StagePush,
    Warn,
    Welcome,
    WorkerChanged,
)
from paceline.coordination.events import (
    ContributionInterrupted,
    ContributionOffered,
    ContributionRejected,
    ContributionVerified,
    Event,
    ProbeAnswered,
    Rejection,
    SessionClosed,
    TaskFailure,
    TaskResult,
    Tick,
    UpdateApplied,
    UpdateFailed,
)
from paceline.coordination.ids import LeaseId, PushId, SessionId, TaskId
from paceline.laws import Law
from paceline.simulation.faultbook import FaultBook
from paceline.simulation.faults import MANIFEST_FAULTS, Fault
from paceline.simulation.held import HeldLease
from paceline.simulation.model import Applied, SimulatedModel, SimulationError
from paceline.simulation.result import SimulationResult
from paceline.simulation.worker import Process, SimulatedWorker


class Steppable(Protocol):
    """The coordinator, or something around it that looks on."""

    @property
    def deadline(self) -> float | None:
        """When the next Tick is due."""
        ...

    def step(self, event: Event, now: float) -> list[Effect]:
        """Take an event."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Settings of the simulated surroundings; times in seconds.

    Attributes:
        latency_s: of every message, drawn anew for each; None: none.
        update_s: of an update.
        heartbeat_s: None: no heartbeats; the machine's timers must be long then.
        reconnect_s: a worker whose connection was closed comes back after this long.
        samples: of a task.
    """

    latency_s: Law | None = None
    update_s: float = 0.0
    heartbeat_s: float | None = None
    reconnect_s: float = 0.05
    samples: int = 32


class Stage(Enum):
    """How far a push has come."""

    OFFERED = "offered"
    STAGING = "staging"
    DELIVERED = "delivered"


@dataclass(slots=True)
class Push:
    """One attempt to deliver a contribution."""

    id: PushId
    process: Process
    lease: LeaseId
    version: int
    results: tuple[TaskResult, ...]
    repeat: bool = False
    stage: Stage = Stage.OFFERED
    cut: bool = False
    answer_lost: bool = False
    rejection: Rejection | None = None


@dataclass(slots=True)
class Lane:
    """One direction of a connection: messages arrive in the order of sending."""

    free_s: float = 0.0


@dataclass(slots=True)
class Session:
    """A control connection; `open` as the server sees it, `cut` if nothing arrives any more."""

    process: Process
    up: Lane
    down: Lane
    open: bool = True
    cut: bool = False


class Simulation:
    """A run of the coordinator with simulated workers.

    Args:
        machine: the coordinator; its `rounds` end the run.
        workers: their names may not repeat.
        faults: what goes wrong.
        seed: of all draws: each worker's task times have a generator of their own.
    """

    def __init__(
        self,
        machine: Steppable,
        workers: Sequence[SimulatedWorker],
        *,
        faults: Sequence[Fault] = (),
        world: World | None = None,
        seed: int = 0,
    ) -> None:
        world = world if world is not None else World()
        self.now = 0.0
        self.heartbeat_s = world.heartbeat_s
        self.reconnect_s = world.reconnect_s
        self.samples = world.samples
        self.model = SimulatedModel()
        self.result = SimulationResult(model=self.model)
        self._machine = machine
        self._world = world
        self._workers = {worker.name: worker for worker in workers}
        if len(self._workers) != len(workers):
            raise SimulationError(f"workers are {[worker.name for worker in workers]}: expected different names")
        generators = np.random.default_rng(seed).spawn(len(workers) + 1)
        self._rng = generators[0]
        self._task_s = {worker.name: worker.source(rng) for worker, rng in zip(workers, generators[1:], strict=True)}
        self._faults = FaultBook(faults, self.result.faults)
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._inbox: deque[tuple[SessionId | None, Event]] = deque()
        self._sessions: dict[SessionId, Session] = {}
        self._pushes: dict[PushId, Push] = {}
        self._data: dict[Process, Lane] = {}
        self._processes: dict[str, list[Process]] = {worker.name: [] for worker in workers}
        self._carry_out = cast("dict[type, Callable[[Effect], None]]", self._dispatch_table())
        for worker in workers:
            self.at(worker.joins_at_s, partial(self.launch, worker.name))
        for time_s, action in self._faults.schedule(self):
            self.at(time_s, action)

    # ---- the loop

    def run(self, until_s: float = math.inf) -> SimulationResult:
        """Run to the end of the run, to `until_s`, or until nothing more can happen.

        Raises:
            SimulationError: the machine's deadline does not move on, or it ordered what cannot be done.
        """
        ticks = 0
        while self.result.finish is None:
            deadline = self._machine.deadline
            next_s = self._heap[0][0] if self._heap else math.inf
            due_s = min(next_s, math.inf if deadline is None else deadline)
            if due_s > until_s or due_s == math.inf:
                break
            self.now = max(self.now, due_s)
            if next_s <= due_s:
                heapq.heappop(self._heap)[2]()
                ticks = 0
            else:
                ticks += 1
                if ticks > 1000:
                    raise SimulationError(f"the machine's deadline stays at {deadline} s: now is {self.now} s")
                self._inbox.append((None, Tick()))
            while self._inbox:
                self._step(*self._inbox.popleft())
        self.result.end(self.now, [process for all_of in self._processes.values() for process in all_of])
        return self.result

    def _step(self, session: SessionId | None, event: Event) -> None:
        if session is not None and not self._sessions[session].open:
            self.result.lost_messages += 1
            return
        if self.result.finish is not None:
            return
        self.result.events += 1
        for effect in self._machine.step(event, self.now):
            self._carry_out[type(effect)](effect)

    # ---- what processes may do (see worker.World)

    def at(self, time_s: float, action: Callable[[], None]) -> None:
        """Do something at a time; what was asked for first comes first."""
        self._count += 1
        heapq.heappush(self._heap, (time_s, self._count, action))

    def connect(self, process: Process) -> SessionId:
        """Open a session."""
        session = SessionId(len(self._sessions) + 1)
        self._sessions[session] = Session(process, Lane(), Lane())
        return session

    def say(self, session: SessionId, event: Event) -> None:
        """Send a message over a session."""
        link = self._sessions[session]
        self._travel(link.up, lambda: self._arrive(session, link, event))

    def offer(self, process: Process, held: HeldLease) -> PushId:
        """Announce a push: inside the session if it takes no time, else over the data connection."""
        first = self._offer(process, held, repeat=False)
        if process.worker.duplicates:
            self._offer(process, held, repeat=True)
        return first

    def deliver(self, push: PushId) -> None:
        """All bytes of a push are there: checked, found bad or, if the connection is to break, lost."""
        attempt = self._pushes.get(push)
        if attempt is None or attempt.stage is not Stage.STAGING:
            return
        if attempt.cut:
            self.withdraw(push)
            attempt.process.hear(partial(attempt.process.broken, push))
            return
        attempt.stage = Stage.DELIVERED
        if attempt.rejection is not None and attempt.rejection not in MANIFEST_FAULTS:
            self._post(ContributionRejected(push, attempt.rejection, f"simulated: {attempt.rejection.value}"))
        else:
            self._post(ContributionVerified(push))

    def withdraw(self, push: PushId) -> None:
        """Break off a push."""
        attempt = self._pushes.get(push)
        if attempt is not None and attempt.stage is Stage.STAGING:
            self._post(ContributionInterrupted(push))
            del self._pushes[push]

    def gone(self, process: Process) -> None:
        """Close the connections of a process that has ended."""
        for session, link in self._sessions.items():
            if link.process is process and not link.cut:
                self.cut(session)
        for push in [push for push, attempt in self._pushes.items() if attempt.process is process]:
            self.withdraw(push)
        process.session = None

    def current(self, version: int) -> bool:
        """The server has only the newest version."""
        return version == self.model.version

    def task_fault(self, name: str, task: TaskId) -> TaskFailure | None:
        """See FaultBook."""
        return self._faults.task_failure(name, task)

    def hangs(self, name: str) -> bool:
        """See FaultBook."""
        return self._faults.hangs(name)

    # ---- what faults do

    def launch(self, name: str) -> None:
        """Start a process of a worker."""
        processes = self._processes[name]
        incarnation = f"{name}#{len(processes) + 1}"
        process = Process(self, self._workers[name], incarnation, self._task_s[name])
        processes.append(process)
        self._data[process] = Lane()
        process.start()

    def process(self, name: str) -> Process | None:
        """Give the living process of a worker, the oldest if there are two."""
        return next((process for process in self._processes[name] if process.alive), None)

    def cut(self, session: SessionId, noticed_after_s: float = 0.0) -> None:
        """Break a session; the server hears of it now or later."""
        self._sessions[session].cut = True
        if noticed_after_s > 0:
            self.at(self.now + noticed_after_s, partial(self._close, session))
        else:
            self._close(session)

    def post(self, event: Event) -> None:
        """Let the server's shell see something."""
        self._post(event)

    # ---- messages

    def _post(self, event: Event) -> None:
        self._inbox.append((None, event))

    def _close(self, session: SessionId) -> None:
        link = self._sessions[session]
        if link.open:
            link.open = False
            self._post(SessionClosed(session))

    def _travel(self, lane: Lane, action: Callable[[], None]) -> None:
        if self._world.latency_s is None:
            action()
            return
        lane.free_s = max(lane.free_s, self.now + self._world.latency_s.draw(self._rng))
        self.at(lane.free_s, action)

    def _arrive(self, session: SessionId, link: Session, event: Event) -> None:
        if link.cut or not link.open:
            self.result.lost_messages += 1
        else:
            self._inbox.append((session, event))

    def _tell(self, session: SessionId, action: Callable[[], None]) -> None:
        """Say something to a worker; lost if its session is closed or breaks on the way."""
        link = self._sessions[session]
        if not link.open:
            self.result.lost_messages += 1
            return
        self._travel(link.down, lambda: self._received(link, action))

    def _received(self, link: Session, action: Callable[[], None]) -> None:
        if link.cut:
            self.result.lost_messages += 1
        else:
            link.process.hear(action)

    def _offer(self, process: Process, held: HeldLease, *, repeat: bool) -> PushId:
        push = PushId(self.result.pushes + 1)
        self.result.pushes += 1
        attempt = Push(push, process, held.lease, held.order.version, held.manifest(), repeat)
        self._pushes[push] = attempt
        if not repeat:
            self._faults.mark_push(attempt)
        offer = self._manifest(attempt, held.wasted_s)
        if process.worker.push_s > 0:
            self._travel(self._data[process], lambda: self._post(offer))
        elif process.session is not None:
            self.say(process.session, offer)
        return push

    def _manifest(self, attempt: Push, wasted_s: float) -> ContributionOffered:
        lease, version, results = attempt.lease, attempt.version, attempt.results
        if attempt.rejection is Rejection.UNKNOWN_LEASE:
            lease = LeaseId(lease + 1_000_000)
        elif attempt.rejection is Rejection.WRONG_VERSION:
            version += 1
        elif attempt.rejection is Rejection.WRONG_TASKS:
            wrong = TaskId(results[0].task + 1_000_000)
            result = results[0]
            results = (TaskResult(task=wrong, seconds=result.seconds, loss_sum=0.0, samples=1), *results[1:])
        return ContributionOffered(
            push=attempt.id,
            lease=lease,
            incarnation=attempt.process.incarnation,
            version=version,
            results=results,
            wasted_s=wasted_s,
        )

    # ---- effects

    def _dispatch_table(self) -> dict[type, object]:
        return {
            Welcome: self._welcome,
            Refuse: self._refuse,
            Probe: self._probe,
            SendLease: self._send_lease,
            SendGrant: self._send_grant,
            SendVerdict: self._send_verdict,
            SendCollect: self._send_collect,
            SendCancel: self._send_cancel,
            Goodbye: self._goodbye,
            CloseSession: self._close_session,
            StagePush: self._stage,
            RefusePush: self._refuse_push,
            AddContribution: self._add,
            AcknowledgePush: self._acknowledge,
            ApplyUpdate: self._update,
            RoundPlanned: self.result.plans.append,
            RoundRecord: self.result.rounds.append,
            LeaseRecord: self.result.leases.append,
            WorkerChanged: self.result.changes.append,
            Warn: lambda effect: self.result.warnings.append(effect.text),
            Finish: self._finish,
        }

    def _welcome(self, effect: Welcome) -> None:
        process = self._sessions[effect.session].process
        self._tell(effect.session, partial(process.welcomed, effect.resumed))

    def _refuse(self, effect: Refuse) -> None:
        process = self._sessions[effect.session].process
        self.result.refused.append(effect)
        self._tell(effect.session, partial(process.refused, effect.session, effect.code))
        self._close(effect.session)

    def _probe(self, effect: Probe) -> None:
        self._tell(effect.session, lambda: self.say(effect.session, ProbeAnswered(effect.session)))

    def _send_lease(self, effect: SendLease) -> None:
        self._tell(effect.session, partial(self._sessions[effect.session].process.lease, effect))

    def _send_grant(self, effect: SendGrant) -> None:
        self._tell(effect.session, partial(self._sessions[effect.session].process.grant, effect.lease, effect.tasks))

    def _send_verdict(self, effect: SendVerdict) -> None:
        process = self._sessions[effect.session].process
        self._tell(effect.session, partial(process.verdict, effect.lease, effect.task, effect.keep))

    def _send_collect(self, effect: SendCollect) -> None:
        self._tell(effect.session, partial(self._sessions[effect.session].process.collect, effect.lease, effect.kept))

    def _send_cancel(self, effect: SendCancel) -> None:
        self._tell(effect.session, partial(self._sessions[effect.session].process.cancel, effect.lease))

    def _goodbye(self, effect: Goodbye) -> None:
        self._tell(effect.session, self._sessions[effect.session].process.kill)

    def _close_session(self, effect: CloseSession) -> None:
        process = self._sessions[effect.session].process
        self._tell(effect.session, partial(process.disconnected, effect.session, self.reconnect_s))
        self._close(effect.session)

    def _stage(self, effect: StagePush) -> None:
        attempt = self._pushes[effect.push]
        attempt.stage = Stage.STAGING
        process = attempt.process
        if not process.alive:
            self.withdraw(effect.push)
        elif attempt.repeat:
            self.at(self.now + process.worker.push_s, partial(self.deliver, effect.push))
        elif process.worker.push_s == 0:
            self.deliver(effect.push)
        else:
            self._travel(self._data[process], lambda: process.hear(partial(process.granted, effect.push)))

    def _refuse_push(self, effect: RefusePush) -> None:
        self.result.rejections[effect.rejection] += 1
        self._answer(effect.push)

    def _add(self, effect: AddContribution) -> None:
        attempt = self._pushes.get(effect.push)
        if attempt is None or attempt.stage is not Stage.DELIVERED or attempt.lease != effect.lease:
            raise SimulationError(f"{effect} was ordered: its bytes are not there")
        self.model.add(Applied(attempt.lease, attempt.process.name, attempt.version, attempt.results, effect.weight))
        self._answer(effect.push)

    def _acknowledge(self, effect: AcknowledgePush) -> None:
        self._answer(effect.push)

    def _answer(self, push: PushId) -> None:
        attempt = self._pushes.pop(push)
        process = attempt.process
        if attempt.repeat:
            return
        if attempt.answer_lost:
            process.hear(partial(process.broken, push))
        elif process.worker.push_s > 0:
            self._travel(self._data[process], lambda: process.hear(partial(process.answered, push)))
        elif process.session is not None:
            self._tell(process.session, partial(process.answered, push))

    def _update(self, effect: ApplyUpdate) -> None:
        self.at(self.now + self._world.update_s, partial(self._updated, effect))

    def _updated(self, order: ApplyUpdate) -> None:
        if self._faults.update_fails(order.version):
            self._post(UpdateFailed(f"simulated: the optimizer raised at version {order.version}"))
            return
        self.model.update(order, self.now)
        scalars = tuple((name, 0.0) for name in order.scalars)
        self._post(UpdateApplied(version=order.version, loss=order.loss, scalars=scalars))

    def _finish(self, effect: Finish) -> None:
        self.result.finish = effect
