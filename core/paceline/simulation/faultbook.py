"""Decides when the faults of a simulated run strike, and counts those that did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol

from paceline.coordination.events import Event, PauseRequested, Rejection, StopRequested, TaskFailure
from paceline.coordination.ids import SessionId, TaskId, WorkerName
from paceline.simulation.clock import Clock
from paceline.simulation.faults import (
    CorruptPush,
    CutPush,
    CutSession,
    Drain,
    FailTask,
    FailUpdate,
    Fault,
    Freeze,
    HangTask,
    Kill,
    LoseAnswer,
    Pause,
    SecondProcess,
    Stop,
)
from paceline.simulation.network import Network


class Victim(Protocol):
    """A process that a fault may strike."""

    session: SessionId | None

    def hear(self, action: Callable[[], None]) -> None:
        """Receive a message."""
        ...

    def kill(self) -> None:
        """Die at once."""
        ...

    def freeze(self) -> None:
        """Stand still."""
        ...

    def thaw(self) -> None:
        """Go on."""
        ...

    def drain(self) -> None:
        """Be asked to leave."""
        ...

    def disconnected(self, session: SessionId, again_after_s: float) -> None:
        """Lose a session."""
        ...


class Stage(Protocol):
    """Where faults strike: what the driver offers them."""

    @property
    def clock(self) -> Clock:
        """The virtual clock."""
        ...

    @property
    def network(self) -> Network:
        """All connections."""
        ...

    def process(self, name: str) -> Victim | None:
        """Give the living process of a worker."""
        ...

    def launch(self, name: str) -> None:
        """Start a process of a worker."""
        ...

    def post(self, event: Event) -> None:
        """Let the server's shell see something."""
        ...


class Markable(Protocol):
    """A push that a fault may spoil."""

    cut: bool
    answer_lost: bool
    rejection: Rejection | None


class FaultBook:
    """The faults of one run.

    Args:
        struck: is counted up by the name of the fault's class when one really happens.
    """

    def __init__(self, faults: Sequence[Fault], struck: Counter[str]) -> None:
        self._faults = faults
        self._struck = struck
        self._pushes: Counter[str] = Counter()
        self._tasks: Counter[str] = Counter()
        self._failures = [fault for fault in faults if isinstance(fault, FailTask)]
        self._left = [fault.times for fault in self._failures]
        self._hangs = {(fault.worker, fault.nth) for fault in faults if isinstance(fault, HangTask)}
        self._bad_pushes = {
            (fault.worker, fault.nth): fault
            for fault in faults
            if isinstance(fault, CutPush | LoseAnswer | CorruptPush)
        }

    def count(self, kind: str) -> None:
        """Note that a fault has happened."""
        self._struck[kind] += 1

    def schedule(self, stage: Stage) -> Iterator[tuple[float, Callable[[], None]]]:
        """Give the faults that strike at a time, with what they do."""
        for fault in self._faults:
            match fault:
                case Kill(at_s=time_s) | CutSession(at_s=time_s) | Drain(at_s=time_s):
                    yield time_s, partial(self._strike, stage, fault)
                case Freeze(from_s=time_s):
                    yield time_s, partial(self._strike, stage, fault)
                case Pause(worker=worker, from_s=from_s, to_s=to_s):
                    yield from_s, partial(self._pause, stage, worker, True)
                    yield to_s, partial(self._pause, stage, worker, False)
                case SecondProcess(worker=worker, at_s=time_s):
                    yield time_s, partial(self._second_process, stage, worker)
                case Stop(at_s=time_s, grace_s=grace_s):
                    yield time_s, partial(self._stop, stage, grace_s)
                case _:
                    pass

    def task_failure(self, name: str, task: TaskId) -> TaskFailure | None:
        """What makes this attempt at the task fail, if anything."""
        for index, fault in enumerate(self._failures):
            if self._left[index] and fault.worker in (None, name) and fault.task in (None, task):
                self._left[index] -= 1
                self.count("FailTask")
                return fault.failure
        return None

    def hangs(self, name: str) -> bool:
        """The task that the worker starts now never ends."""
        if not self._hangs:
            return False
        self._tasks[name] += 1
        if (name, self._tasks[name]) not in self._hangs:
            return False
        self.count("HangTask")
        return True

    def mark_push(self, name: str, push: Markable) -> None:
        """Spoil a push that a worker has just made, if it is its turn."""
        if not self._bad_pushes:
            return
        self._pushes[name] += 1
        match self._bad_pushes.get((name, self._pushes[name])):
            case CutPush():
                push.cut = True
                self.count("CutPush")
            case LoseAnswer():
                push.answer_lost = True
                self.count("LoseAnswer")
            case CorruptPush(rejection=rejection):
                push.rejection = rejection
                self.count("CorruptPush")

    def update_fails(self, version: int) -> bool:
        """The update to this version raises."""
        fails = any(isinstance(fault, FailUpdate) and fault.version == version for fault in self._faults)
        if fails:
            self.count("FailUpdate")
        return fails

    def _strike(self, stage: Stage, fault: Kill | CutSession | Drain | Freeze) -> None:
        process = stage.process(fault.worker)
        if process is None:
            return
        match fault:
            case Kill(restart_after_s=restart_after_s):
                process.kill()
                if restart_after_s is not None:
                    stage.clock.after(restart_after_s, partial(stage.launch, fault.worker))
            case Freeze(to_s=to_s):
                process.freeze()
                stage.clock.at(to_s, process.thaw)
            case CutSession(resume_after_s=resume_after_s, noticed_after_s=noticed_after_s):
                session = process.session
                if session is None:
                    return
                stage.network.cut(session, noticed_after_s)
                process.hear(partial(process.disconnected, session, resume_after_s))
            case Drain():
                process.hear(process.drain)
        self.count(type(fault).__name__)

    def _pause(self, stage: Stage, worker: str, paused: bool) -> None:
        stage.post(PauseRequested(WorkerName(worker), paused))
        if paused:
            self.count("Pause")

    def _second_process(self, stage: Stage, worker: str) -> None:
        if stage.process(worker) is not None:
            stage.launch(worker)
            self.count("SecondProcess")

    def _stop(self, stage: Stage, grace_s: float) -> None:
        stage.post(StopRequested("simulated: stop", grace_s=grace_s))
        self.count("Stop")
