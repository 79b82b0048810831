"""What a simulated worker holds: leases, and the one thing that it does at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from paceline.coordination.effects import SendLease
from paceline.coordination.events import Event, TaskFailed, TaskReported, TaskResult
from paceline.coordination.ids import LeaseId, PushId, SessionId, TaskId
from paceline.simulation.model import SimulationError


@dataclass(slots=True)
class HeldLease:
    """A lease as its worker sees it.

    Attributes:
        todo: granted and not finished, in order; the first may be running.
        results: of finished tasks that were not dropped.
        failures: task, kind and seconds of those that failed, as they were told.
        kept: in the sum.
        awaiting: the reported task whose verdict has not come.
        collect: the ids to push, once ordered.
        cancelled: to be ended when the present micro-step allows.
        begun: a task of it has been started.
        push: the attempt that is under way; `pushed` that one was begun and has no answer.
    """

    order: SendLease
    todo: deque[TaskId] = field(default_factory=deque)
    known: set[TaskId] = field(default_factory=set)
    results: dict[TaskId, TaskResult] = field(default_factory=dict)
    failures: list[TaskFailed] = field(default_factory=list)
    kept: list[TaskId] = field(default_factory=list)
    awaiting: TaskId | None = None
    collect: tuple[TaskId, ...] | None = None
    cancelled: bool = False
    begun: bool = False
    push: PushId | None = None
    pushed: bool = False
    wasted_s: float = 0.0

    @property
    def lease(self) -> LeaseId:
        """Its id."""
        return self.order.lease

    def grant(self, tasks: tuple[TaskId, ...]) -> None:
        """Take over the tasks that it lacks."""
        for task in tasks:
            if task not in self.known:
                self.known.add(task)
                self.todo.append(task)

    def finish(self, result: TaskResult) -> None:
        """Note a finished task: in the sum, or apart until its verdict."""
        self.results[result.task] = result
        if self.order.keep_in_advance:
            self.kept.append(result.task)
        else:
            self.awaiting = result.task

    def decide(self, task: TaskId, keep: bool) -> None:
        """Take a verdict; one that is repeated changes nothing."""
        if self.awaiting != task:
            return
        self.awaiting = None
        if keep:
            self.kept.append(task)
        else:
            del self.results[task]

    def order_collect(self, kept: tuple[TaskId, ...]) -> None:
        """Take the order to push exactly `kept`, which may keep the task in waiting.

        Raises:
            SimulationError: the worker has no gradient of one of them.
        """
        if self.awaiting is not None:
            self.decide(self.awaiting, self.awaiting in kept)
        if set(kept) != set(self.kept):
            raise SimulationError(f"lease {self.lease} is to push tasks {kept}: its sum has {self.kept}")
        self.collect = kept

    def manifest(self) -> tuple[TaskResult, ...]:
        """Give the results in the sum."""
        return tuple(self.results[task] for task in self.kept)

    def unanswered(self, session: SessionId) -> list[Event]:
        """Give the messages to repeat on a resumed session: reports without verdict or push result, and failures."""
        results = self.results.values() if self.order.keep_in_advance else []
        events: list[Event] = [TaskReported(session, self.lease, result) for result in results]
        if self.awaiting is not None:
            events.append(TaskReported(session, self.lease, self.results[self.awaiting]))
        events += [replace(failed, session=session) for failed in self.failures]
        return events


@dataclass(slots=True, kw_only=True)
class Activity:
    """The one thing that a worker does at a time: a task, a pull or a push.

    Attributes:
        task: None for a transfer.
        seconds: what it takes in all; infinite for a task that hangs.
        ends_s: when; moved by a freeze or by a stop at the end of a micro-step.
        then: what follows.
    """

    held: HeldLease
    task: TaskId | None
    began_s: float
    seconds: float
    ends_s: float
    then: Callable[[Activity], None]
