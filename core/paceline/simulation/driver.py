"""Runs the coordinator on a virtual clock: what the server's shell does with events, effects and time, in one loop.

The machine is the real one; the server's shell, the network, the model and the workers are simulated. Everything is
decided by the seed. Rules: the machine is never stepped inside a step, effects are carried out in order, and effects to
a closed session are dropped.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
from paceline.coordination.events import Event, ProbeAnswered, Tick, UpdateApplied, UpdateFailed
from paceline.coordination.ids import SessionId
from paceline.coordination.plan import SCALARS
from paceline.laws import Law
from paceline.simulation.clock import Clock
from paceline.simulation.faultbook import FaultBook
from paceline.simulation.faults import Fault
from paceline.simulation.model import SimulatedModel, SimulationError, Update
from paceline.simulation.network import Network
from paceline.simulation.pushes import Pushes
from paceline.simulation.result import SimulationResult
from paceline.simulation.surroundings import SimulatedWorker
from paceline.simulation.worker import Process


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
        scalars: gives the numbers that policies ask for of an update, see `coordination.plan.SCALARS`.
    """

    latency_s: Law | None = None
    update_s: float = 0.0
    heartbeat_s: float | None = None
    reconnect_s: float = 0.05
    samples: int = 32
    scalars: Callable[[Update], Mapping[str, float]] = lambda update: dict.fromkeys(SCALARS, 0.0)


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
        self.heartbeat_s = world.heartbeat_s
        self.reconnect_s = world.reconnect_s
        self.samples = world.samples
        self.clock = Clock()
        self.result = SimulationResult(model=SimulatedModel())
        self._machine = machine
        self._update_s = world.update_s
        self._scalars = world.scalars
        self._workers = {worker.name: worker for worker in workers}
        if len(self._workers) != len(workers):
            raise SimulationError(f"workers are {[worker.name for worker in workers]}: expected different names")
        generators = np.random.default_rng(seed).spawn(len(workers) + 1)
        self._task_s = {worker.name: worker.source(rng) for worker, rng in zip(workers, generators[1:], strict=True)}
        self._inbox: deque[tuple[SessionId | None, Event]] = deque()
        self.network = Network(self.clock, world.latency_s, generators[0], self._arrive)
        self.faults = FaultBook(faults, self.result.faults)
        self.pushes = Pushes(self.clock, self.network, self.faults, self.result.model, self.post)
        self._talkers: dict[SessionId, Process] = {}
        self._processes: dict[str, list[Process]] = {worker.name: [] for worker in workers}
        self._carry_out = cast("dict[type, Callable[[Effect], None]]", self._dispatch_table())
        for worker in workers:
            self.clock.at(worker.joins_at_s, partial(self.launch, worker.name))
        for time_s, action in self.faults.schedule(self):
            self.clock.at(time_s, action)

    # ---- the loop

    def run(self, until_s: float = math.inf) -> SimulationResult:
        """Run to the end of the run, to `until_s`, or until nothing more can happen.

        Raises:
            SimulationError: the machine's deadline does not move on, or it ordered what cannot be done.
        """
        clock, ticks = self.clock, 0
        while self.result.finish is None:
            deadline = self._machine.deadline
            due_s = min(clock.next_s, math.inf if deadline is None else deadline)
            if due_s > until_s or due_s == math.inf:
                break
            clock.now = max(clock.now, due_s)
            if clock.next_s <= due_s:
                clock.take()()
                ticks = 0
            else:
                ticks += 1
                if ticks > 1000:
                    raise SimulationError(f"the machine's deadline stays at {deadline} s: now is {clock.now} s")
                self.post(Tick())
            while self._inbox:
                self._step(*self._inbox.popleft())
        self.result.pushes = self.pushes.offered
        self.result.lost_messages += self.network.lost_messages
        self.result.end(clock.now, [process for all_of in self._processes.values() for process in all_of])
        return self.result

    def _step(self, session: SessionId | None, event: Event) -> None:
        if session is not None and not self.network.is_open(session):
            self.result.lost_messages += 1
            return
        if self.result.finish is not None:
            return
        self.result.events += 1
        for effect in self._machine.step(event, self.clock.now):
            self._carry_out[type(effect)](effect)

    def _arrive(self, session: SessionId | None, event: Event) -> None:
        self._inbox.append((session, event))

    def post(self, event: Event) -> None:
        """Let the server's shell see something."""
        self._inbox.append((None, event))

    # ---- what processes and faults may do

    def connect(self, process: Process) -> SessionId:
        """Open a session."""
        session = self.network.connect(process)
        self._talkers[session] = process
        return session

    def gone(self, process: Process) -> None:
        """Close the connections of a process that has ended."""
        self.network.hang_up(process)
        self.pushes.withdraw_all(process)
        process.session = None

    def current(self, version: int) -> bool:
        """Tell whether the server has this version: it has only the newest."""
        return version == self.result.model.version

    def launch(self, name: str) -> None:
        """Start a process of a worker."""
        processes = self._processes[name]
        processes.append(Process(self, self._workers[name], f"{name}#{len(processes) + 1}", self._task_s[name]))
        processes[-1].start()

    def process(self, name: str) -> Process | None:
        """Give the living process of a worker, the oldest if there are two."""
        return next((process for process in self._processes[name] if process.alive), None)

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
            StagePush: self.pushes.stage,
            RefusePush: self._refuse_push,
            AddContribution: self.pushes.add,
            AcknowledgePush: self.pushes.answer,
            ApplyUpdate: self._update,
            RoundPlanned: self.result.plans.append,
            RoundRecord: self.result.rounds.append,
            LeaseRecord: self.result.leases.append,
            WorkerChanged: self.result.changes.append,
            Warn: lambda order: self.result.warnings.append(order.text),
            Finish: self._finish,
        }

    def _refuse(self, order: Refuse) -> None:
        self.result.refused.append(order)
        self.network.tell(order.session, partial(self._talkers[order.session].refused, order.session, order.code))
        self.network.close(order.session)

    def _probe(self, order: Probe) -> None:
        answer = ProbeAnswered(order.session)
        self.network.tell(order.session, lambda: self.network.say(order.session, answer))

    def _welcome(self, order: Welcome) -> None:
        self.network.tell(order.session, partial(self._talkers[order.session].welcomed, order.resumed))

    def _send_lease(self, order: SendLease) -> None:
        self.network.tell(order.session, partial(self._talkers[order.session].lease, order))

    def _send_grant(self, order: SendGrant) -> None:
        self.network.tell(order.session, partial(self._talkers[order.session].grant, order.lease, order.tasks))

    def _send_verdict(self, order: SendVerdict) -> None:
        process = self._talkers[order.session]
        self.network.tell(order.session, partial(process.verdict, order.lease, order.task, order.keep))

    def _send_collect(self, order: SendCollect) -> None:
        self.network.tell(order.session, partial(self._talkers[order.session].collect, order.lease, order.kept))

    def _send_cancel(self, order: SendCancel) -> None:
        self.network.tell(order.session, partial(self._talkers[order.session].cancel, order.lease))

    def _goodbye(self, order: Goodbye) -> None:
        self.network.tell(order.session, self._talkers[order.session].kill)

    def _close_session(self, order: CloseSession) -> None:
        process = self._talkers[order.session]
        self.network.tell(order.session, partial(process.disconnected, order.session, self.reconnect_s))
        self.network.close(order.session)

    def _refuse_push(self, order: RefusePush) -> None:
        self.result.rejections[order.rejection] += 1
        self.pushes.answer(order)

    def _update(self, order: ApplyUpdate) -> None:
        self.clock.after(self._update_s, partial(self._updated, order))

    def _updated(self, order: ApplyUpdate) -> None:
        if self.faults.update_fails(order.version):
            self.post(UpdateFailed(f"simulated: the optimizer raised at version {order.version}"))
            return
        update = self.result.model.update(order, self.clock.now)
        known = self._scalars(update) if order.scalars else {}
        scalars = tuple((name, known[name]) for name in order.scalars)
        self.post(UpdateApplied(version=order.version, loss=order.loss, scalars=scalars))

    def _finish(self, order: Finish) -> None:
        self.result.finish = order
