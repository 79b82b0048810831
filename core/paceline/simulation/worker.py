"""The life of one process of a simulated worker on the virtual clock.

It does what the worker's shell does (leases strictly in order of arrival, one sum, verdict before the next task, pushes
repeated until they are answered), without tensors and without a network.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

from paceline.coordination.effects import RefusalCode, SendLease
from paceline.coordination.events import (
    DrainRequested,
    Event,
    Heard,
    Hello,
    LeaseEnded,
    Ready,
    TaskFailed,
    TaskFailure,
    TaskReported,
    TaskResult,
    VersionGone,
)
from paceline.coordination.ids import Incarnation, LeaseId, PushId, SessionId, TaskId, WorkerName
from paceline.simulation.held import Activity, HeldLease
from paceline.simulation.surroundings import SimulatedWorker, Surroundings


class Process:
    """One incarnation of a worker. The driver calls; everything that the process says goes to its world."""

    def __init__(
        self, world: Surroundings, worker: SimulatedWorker, incarnation: str, task_s: Callable[[], float]
    ) -> None:
        self.worker = worker
        self.name = WorkerName(worker.name)
        self.incarnation = Incarnation(incarnation)
        self.alive = True
        self.session: SessionId | None = None
        self.busy_s = 0.0
        self._world = world
        self._task_s = task_s
        self._leases: dict[LeaseId, HeldLease] = {}
        self._ended: deque[tuple[LeaseId, float]] = deque(maxlen=64)
        self._over: deque[LeaseId] = deque(maxlen=64)
        self._doing: Activity | None = None
        self._version: int | None = None
        self._preparing = False
        self._prepared = False
        self._draining = False
        self._frozen_since: float | None = None
        self._mailbox: list[Callable[[], None]] = []
        self._micro_steps_told = 0

    # ---- life

    def start(self) -> None:
        """Begin: say hello, and be heard of from then on."""
        self._hello()
        if self._world.heartbeat_s is not None:
            self._later(self._world.heartbeat_s, self._beat)

    def kill(self) -> None:
        """Die at once."""
        self._abandon()
        self.alive = False
        self._world.gone(self)

    def freeze(self) -> None:
        """Stand still."""
        self._frozen_since = self._world.clock.now

    def thaw(self) -> None:
        """Go on: first with what was being done, then with what was heard meanwhile."""
        if self._frozen_since is None or not self.alive:
            return
        stood_s = self._world.clock.now - self._frozen_since
        self._frozen_since = None
        if self._doing is not None:
            self._doing.seconds += stood_s
            self._set_end(self._doing, self._doing.ends_s + stood_s)
        mailbox, self._mailbox = self._mailbox, []
        for action in mailbox:
            self.hear(action)

    def hear(self, action: Callable[[], None]) -> None:
        """Receive a message, now or when the process goes on."""
        if not self.alive:
            return
        if self._frozen_since is not None:
            self._mailbox.append(action)
        else:
            action()

    def drain(self) -> None:
        """Be asked to leave."""
        self._draining = True
        self._say(DrainRequested)
        self._go_on()

    # ---- the session

    def disconnected(self, session: SessionId, again_after_s: float) -> None:
        """The session is broken or was closed by the server: come back a little later."""
        if self.session == session:
            self.session = None
            self._later(again_after_s, self._hello)

    def welcomed(self, resumed: bool) -> None:
        """Repeat what has no answer, or begin anew."""
        if resumed and self._preparing:
            self._repeat()
            return
        self._abandon()
        self._leases.clear()
        if self._prepared:
            self._become_ready()
        elif not self._preparing:
            self._preparing = True
            self._later(self.worker.ready_s, self._become_ready)

    def refused(self, session: SessionId, code: RefusalCode) -> None:
        """Leave; or, where only the leases are lost, come back without them."""
        if code is not RefusalCode.LOST:
            self.kill()
            return
        self._abandon()
        self._leases.clear()
        self.disconnected(session, self._world.reconnect_s)

    def _hello(self) -> None:
        if self.session is not None:
            return
        self.session = self._world.connect(self)
        hello = Hello(
            session=self.session,
            name=self.name,
            incarnation=self.incarnation,
            address=f"host-{self.name} pid {self.incarnation}",
            device=self.worker.device,
            leases=tuple(self._leases),
        )
        self._world.network.say(self.session, hello)

    def _become_ready(self) -> None:
        self._prepared = True
        self._say(Ready)
        if self._draining:
            self._say(DrainRequested)

    def _repeat(self) -> None:
        if self.session is None:
            return
        if self._prepared:
            self._say(Ready)
        for lease, wasted_s in self._ended:
            self._say(LeaseEnded, lease, wasted_s)
        for held in list(self._leases.values()):
            for event in held.unanswered(self.session):
                self._world.network.say(self.session, event)
            if held.pushed and self.worker.push_s == 0:
                held.push = self._world.pushes.offer(self, held)
        if self._draining:
            self._say(DrainRequested)

    def _say(self, kind: Callable[..., Event], *content: object) -> None:
        if self.session is None:
            return
        event = kind(self.session, *content)
        self._world.network.say(self.session, event)
        if self.worker.duplicates and isinstance(event, TaskReported | LeaseEnded):
            self._world.network.say(self.session, event)

    def _beat(self) -> None:
        world, doing = self._world, self._doing
        if self.session is not None:
            progress = doing is not None and (doing.task is None or self._micro_steps(doing) > self._micro_steps_told)
            if doing is not None:
                self._micro_steps_told = self._micro_steps(doing)
            world.network.say(self.session, Heard(self.incarnation, progress))
        assert world.heartbeat_s is not None
        self._later(world.heartbeat_s, self._beat)

    def _micro_steps(self, doing: Activity) -> int:
        if doing.seconds == 0.0 or not math.isfinite(doing.seconds):
            return 0
        return int((self._world.clock.now - doing.began_s) * max(self.worker.micro_steps, 1) / doing.seconds)

    # ---- leases

    def lease(self, order: SendLease) -> None:
        """Take a lease, or what it lacks of one that it holds; one that it has ended stays so."""
        held = self._leases.get(order.lease)
        if held is None:
            if order.lease in self._over:
                return
            held = self._leases[order.lease] = HeldLease(order)
        held.grant(order.tasks)
        self._go_on()

    def grant(self, lease: LeaseId, tasks: tuple[TaskId, ...]) -> None:
        """Take further tasks."""
        held = self._leases.get(lease)
        if held is not None:
            held.grant(tasks)
            self._go_on()

    def verdict(self, lease: LeaseId, task: TaskId, keep: bool) -> None:
        """Add the task that waits to the sum, or forget it."""
        held = self._leases.get(lease)
        if held is not None:
            held.decide(task, keep)
            self._go_on()

    def collect(self, lease: LeaseId, kept: tuple[TaskId, ...]) -> None:
        """Give up what is not finished and push."""
        held = self._leases.get(lease)
        if held is not None and held.collect is None:
            held.order_collect(kept)
            self._stop(held)
            self._go_on()

    def cancel(self, lease: LeaseId) -> None:
        """Give everything up."""
        held = self._leases.get(lease)
        if held is not None:
            held.cancelled = True
            self._stop(held)
            if held.push is not None:
                self._world.pushes.withdraw(held.push)
            self._go_on()

    # ---- pushes

    def granted(self, push: PushId) -> None:
        """The server has a stage for the push: send the bytes."""
        held = self._holder(push)
        if held is None:
            self._world.pushes.withdraw(push)
        else:
            self._begin(held, None, self.worker.push_s, lambda _: self._world.pushes.deliver(push))

    def answered(self, push: PushId) -> None:
        """The contribution was taken or refused: either way the lease is over."""
        held = self._holder(push)
        if held is not None:
            if self._doing is not None and self._doing.held is held:
                self._doing = None
            self._forget(held)
            self._go_on()

    def broken(self, push: PushId) -> None:
        """The push, or its answer, was lost on the way: offer it again."""
        held = self._holder(push)
        if held is not None:
            if self._doing is not None and self._doing.held is held:
                self._doing = None
            held.push = None
            self._later(self._world.reconnect_s, lambda: self._offer_again(held))

    def _offer_again(self, held: HeldLease) -> None:
        if held.push is None and self._leases.get(held.lease) is held:
            held.push = self._world.pushes.offer(self, held)

    def _holder(self, push: PushId) -> HeldLease | None:
        return next((held for held in self._leases.values() if held.push == push), None)

    def _forget(self, held: HeldLease) -> None:
        """Take a lease that is over out of the books; what is still said about it changes nothing."""
        if self._leases.pop(held.lease, None) is not None:
            self._over.append(held.lease)

    # ---- work

    def _go_on(self) -> None:
        """Do what comes next for the first lease; leases that are over make way for the next."""
        while self.alive and self._doing is None and self._leases:
            held = next(iter(self._leases.values()))
            if not self._is_over(held):
                return
            self._forget(held)

    def _is_over(self, held: HeldLease) -> bool:
        if held.cancelled:
            return self._end(held)
        if held.pushed or held.awaiting is not None:
            return False
        leaving = self._draining and (held.order.push_unasked or not held.begun)
        if held.collect is not None or leaving:
            return self._push_or_end(held)
        if held.todo:
            self._work(held)
            return held.lease not in self._leases
        return held.order.push_unasked and self._push_or_end(held)

    def _push_or_end(self, held: HeldLease) -> bool:
        if not held.kept:
            return self._end(held)
        held.pushed = True
        held.push = self._world.pushes.offer(self, held)
        return False

    def _end(self, held: HeldLease) -> bool:
        self._ended.append((held.lease, held.wasted_s))
        self._say(LeaseEnded, held.lease, held.wasted_s)
        return True

    def _work(self, held: HeldLease) -> None:
        version = held.order.version
        if self._version != version:
            if self.worker.pull_s and not self._world.current(version):
                self._forget(held)
                self._say(VersionGone, held.lease)
                return
            self._version = version
            if self.worker.pull_s:
                self._begin(held, None, self.worker.pull_s, self._pulled)
                return
        task = held.todo[0]
        held.begun = True
        seconds = math.inf if self._world.faults.hangs(self.name) else self._task_s()
        limit_s = held.order.task_limit_s
        if limit_s is not None and seconds > limit_s:
            self._begin(held, task, limit_s, lambda done: self._failed(done, TaskFailure.TIME_LIMIT))
            return
        failure = self._world.faults.task_failure(self.name, task)
        then = self._finished if failure is None else lambda done: self._failed(done, failure)
        self._begin(held, task, seconds, then)

    def _pulled(self, done: Activity) -> None:
        self._go_on()

    def _finished(self, done: Activity) -> None:
        held, task = done.held, held_task(done)
        self.busy_s += done.seconds
        held.todo.popleft()
        samples = self._world.samples
        result = TaskResult(task=task, seconds=done.seconds, loss_sum=samples / (1.0 + task), samples=samples)
        held.finish(result)
        self._say(TaskReported, held.lease, result)
        self._go_on()

    def _failed(self, done: Activity, failure: TaskFailure) -> None:
        held, task = done.held, held_task(done)
        self.busy_s += done.seconds
        held.todo.popleft()
        failed = TaskFailed(
            session=self.session if self.session is not None else SessionId(-1),
            lease=held.lease,
            task=task,
            failure=failure,
            seconds=done.seconds,
            message=f"task {task} failed on {self.name}",
        )
        held.failures.append(failed)
        if self.session is not None:
            self._world.network.say(self.session, failed)
        self._go_on()

    # ---- the one activity

    def _begin(self, held: HeldLease, task: TaskId | None, seconds: float, then: Callable[[Activity], None]) -> None:
        now = self._world.clock.now
        self._micro_steps_told = 0
        self._doing = Activity(held=held, task=task, began_s=now, seconds=seconds, ends_s=now + seconds, then=then)
        self._set_end(self._doing, now + seconds)

    def _set_end(self, doing: Activity, ends_s: float) -> None:
        doing.ends_s = ends_s
        if math.isfinite(ends_s):
            self._world.clock.at(ends_s, lambda: self._done(doing, ends_s))

    def _done(self, doing: Activity, ends_s: float) -> None:
        if self._doing is doing and doing.ends_s == ends_s and self.alive and self._frozen_since is None:
            self._doing = None
            doing.then(doing)

    def _stop(self, held: HeldLease) -> None:
        """Give up what is done for a lease: at once, or at the end of the micro-step."""
        doing = self._doing
        if doing is None or doing.held is not held:
            return
        if doing.task is None or self.worker.micro_steps == 0:
            self._abandon()
            return
        step_s = doing.seconds / self.worker.micro_steps
        doing.then = self._given_up
        if math.isfinite(step_s):
            doing.seconds = min(doing.seconds, math.ceil((self._world.clock.now - doing.began_s) / step_s) * step_s)
            self._set_end(doing, doing.began_s + doing.seconds)

    def _given_up(self, done: Activity) -> None:
        self.busy_s += done.seconds
        done.held.wasted_s += done.seconds
        self._go_on()

    def _abandon(self) -> None:
        """Drop the present activity on the spot; what went into a task is wasted."""
        doing, self._doing = self._doing, None
        if doing is not None and doing.task is not None:
            spent_s = self._world.clock.now - doing.began_s
            self.busy_s += spent_s
            doing.held.wasted_s += spent_s

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        self._world.clock.after(seconds, lambda: self.hear(action))


def held_task(activity: Activity) -> TaskId:
    """Give the task of an activity that is one."""
    assert activity.task is not None
    return activity.task
