"""Keeps the books of the leases that a worker holds, and says what to do next. Pure: no threads, no I/O, no clock.

A task goes through: waiting, running, unsettled (its gradient lies apart, in the one current gradient buffer), then
settled: in its lease's sum, or forgotten. Where tasks are kept in advance they settle at once; else the server's
verdict decides, and until it is there no other backward may begin. A lease ends by an answered push, or by LeaseEnded.

Leases are worked off in the order of arrival. A lease that waits for more grants or for its collect does not hold up
the next one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from paceline.coordination.events import TaskFailure, TaskResult

# A lost LeaseEnded is said again when the server still speaks of its lease; it speaks of the latest only.
_REMEMBERED = 64


@dataclass(frozen=True, slots=True)
class FailedTask:
    """A task without a result; `seconds` is what it cost."""

    task: int
    failure: TaskFailure
    seconds: float
    message: str
    traceback_text: str = ""


@dataclass(slots=True, kw_only=True)
class HeldLease:
    """One lease. The first six fields never change.

    Attributes:
        task_limit_s: a task that takes longer is given up; 0: none.
        loss_scale: of the version.
        waiting: granted, not begun, in order.
        running: begun, without result.
        verdicts: what the server said of reported tasks.
        summed: tasks in the lease's sum.
        collected: the tasks of a collect, once it came.
        wasted_s: seconds of tasks that were given up.
        holds_sum: a sum buffer is taken for it.
        delivering: its contribution is on its way.
    """

    id: int
    version: int
    keep_in_advance: bool
    push_unasked: bool
    task_limit_s: float
    loss_scale: float = 1.0
    waiting: deque[int] = field(default_factory=deque)
    granted: set[int] = field(default_factory=set)
    running: int | None = None
    results: dict[int, TaskResult] = field(default_factory=dict)
    failures: dict[int, FailedTask] = field(default_factory=dict)
    verdicts: dict[int, bool] = field(default_factory=dict)
    summed: set[int] = field(default_factory=set)
    collected: frozenset[int] | None = None
    cancelled: bool = False
    wasted_s: float = 0.0
    holds_sum: bool = False
    delivering: bool = False

    @property
    def begun(self) -> bool:
        """Tell whether any task of it has been begun."""
        return self.running is not None or bool(self.results) or bool(self.failures)

    @property
    def closed(self) -> bool:
        """Tell whether no further task of it is to be computed."""
        return self.cancelled or self.collected is not None or self.delivering


@dataclass(frozen=True, slots=True)
class Settle:
    """Add the current gradient to its lease's sum, or forget it."""

    lease: HeldLease
    task: int
    keep: bool


@dataclass(frozen=True, slots=True)
class Load:
    """Load the samples of a task that will be computed next, while a verdict is awaited."""

    lease: HeldLease
    task: int


@dataclass(frozen=True, slots=True)
class Compute:
    """Compute a task."""

    lease: HeldLease
    task: int


@dataclass(frozen=True, slots=True)
class Deliver:
    """Push a lease's sum."""

    lease: HeldLease


@dataclass(frozen=True, slots=True)
class End:
    """Say that nothing will be pushed for a lease."""

    lease: HeldLease


Step = Settle | Load | Compute | Deliver | End


class LeaseBook:
    """All leases of one worker.

    Attributes:
        unsettled: lease and task of the gradient that waits for its verdict.
        loaded: lease and task that Load was said of, until it is computed or its lease ends.
        draining: nothing new is begun.
    """

    def __init__(self) -> None:
        self._leases: dict[int, HeldLease] = {}
        self._over: dict[int, float] = {}
        self.unsettled: tuple[HeldLease, int] | None = None
        self.loaded: tuple[HeldLease, int] | None = None
        self.draining = False

    def __len__(self) -> int:
        return len(self._leases)

    def __contains__(self, lease: int) -> bool:
        return lease in self._leases

    def upcoming(self) -> list[int]:
        """Give the tasks that wait to be computed, in the order in which they will be."""
        return [task for lease in self._leases.values() if not lease.closed for task in lease.waiting]

    def held(self) -> list[HeldLease]:
        """Give the leases in the order of arrival."""
        return list(self._leases.values())

    # ---- what the server says; all of it may be said twice ----------------------------------------------------

    def give(self, terms: HeldLease, tasks: Iterable[int]) -> bool:
        """Take a lease, or the tasks of a known one that were missed.

        Returns:
            False if it is over: say so again.
        """
        if terms.id in self._over:
            return False
        lease = self._leases.setdefault(terms.id, terms)
        self._take(lease, [task for task in tasks if task not in lease.granted])
        return True

    def grant(self, lease_id: int, tasks: Iterable[int]) -> bool:
        """Take further tasks into a lease; a task that failed in it is tried again.

        Returns:
            False if the lease is not held.
        """
        lease = self._leases.get(lease_id)
        if lease is None:
            return False
        new = [task for task in tasks if task not in lease.granted or task in lease.failures]
        for task in new:
            lease.failures.pop(task, None)
        self._take(lease, new)
        return True

    def verdict(self, lease_id: int, task: int, keep: bool) -> None:
        """Note whether a reported task is kept; the first word stands."""
        lease = self._leases.get(lease_id)
        if lease is not None:
            lease.verdicts.setdefault(task, keep)

    def collect(self, lease_id: int, kept: Iterable[int]) -> bool:
        """Close a lease: exactly these tasks are to be pushed. False if it is not held."""
        lease = self._leases.get(lease_id)
        if lease is None:
            return False
        if not lease.delivering:
            lease.collected = frozenset(kept)
            lease.waiting.clear()
        return True

    def cancel(self, lease_id: int) -> bool:
        """Close a lease: nothing of it is wanted, not even what is on its way. False if it is not held."""
        lease = self._leases.get(lease_id)
        if lease is None:
            return False
        lease.cancelled = True
        return True

    def drain(self) -> None:
        """Begin nothing new.

        What is kept in advance is pushed as far as it got. Of other leases only the server knows what is kept: one that
        was begun goes on until the server closes it.
        """
        self.draining = True
        for lease in self._leases.values():
            self._wind_up(lease)

    # ---- what the worker does ---------------------------------------------------------------------------------

    def next_step(self) -> Step | None:
        """Say what to do now, and note it as begun; None: wait for the server."""
        if self.unsettled is not None:
            settle = self._settlement(*self.unsettled)
            if settle is not None:
                return settle
        for lease in self._leases.values():
            if lease.cancelled:
                return End(lease)
            if lease.delivering:
                continue
            if lease.waiting and lease.collected is None:
                return self._next_task(lease, lease.waiting[0])
            unsettled = self.unsettled is not None and self.unsettled[0] is lease
            if (lease.collected is not None or lease.push_unasked) and not unsettled:
                return self._closing(lease)
        return None

    def wanted(self, lease: HeldLease) -> bool:
        """Tell whether a running task of a lease is still of use."""
        return not lease.closed and lease.id in self._leases

    def finish(self, lease: HeldLease, result: TaskResult) -> None:
        """Note a result, whose gradient is now unsettled."""
        lease.running = None
        lease.results[result.task] = result
        if lease.id in self._leases:
            self.unsettled = (lease, result.task)

    def take_waiting(self, lease: HeldLease) -> list[int]:
        """Begin all that waits in a lease, at once."""
        tasks = list(lease.waiting)
        lease.waiting.clear()
        return tasks

    def summed(self, lease: HeldLease, result: TaskResult) -> None:
        """Note a result whose gradient is in the lease's sum already."""
        lease.running = None
        lease.results[result.task] = result
        lease.summed.add(result.task)

    def measured(self, lease: HeldLease, result: TaskResult) -> None:
        """Note the result of a validation task: there is no gradient to settle."""
        lease.running = None
        lease.results[result.task] = result

    def fail(self, lease: HeldLease, failed: FailedTask) -> None:
        """Note a task that failed, or that ran into its time limit."""
        lease.running = None
        if lease.waiting and lease.waiting[0] == failed.task:
            lease.waiting.popleft()
            self.loaded = None
        lease.failures[failed.task] = failed

    def give_up(self, lease: HeldLease, seconds: float) -> None:
        """Note a task that was stopped because nobody wants it any more."""
        lease.running = None
        lease.wasted_s += seconds

    def settle(self, lease: HeldLease, task: int, keep: bool) -> None:
        """Note that the current gradient was added or forgotten."""
        if self.unsettled is not None and self.unsettled[0] is lease:
            self.unsettled = None
        if keep:
            lease.summed.add(task)

    def remove(self, lease_id: int) -> HeldLease | None:
        """Take a lease out of the books, and remember that it is over; None if it is not held.

        A resumed session may give it once more, when the push result came over the other connection meanwhile.
        """
        lease = self._leases.pop(lease_id, None)
        if lease is None:
            return None
        self._over[lease_id] = lease.wasted_s
        if len(self._over) > _REMEMBERED:
            del self._over[next(iter(self._over))]
        if self.unsettled is not None and self.unsettled[0] is lease:
            self.unsettled = None
        if self.loaded is not None and self.loaded[0] is lease:
            self.loaded = None
        return lease

    def wasted_of_over(self, lease_id: int) -> float:
        """Give the seconds to say again of a lease that is not held any more."""
        return self._over.get(lease_id, 0.0)

    def clear(self) -> None:
        """Forget everything: this worker was taken for lost, or the server is another one."""
        for lease_id in list(self._leases):
            self.remove(lease_id)
        self._over.clear()

    def _next_task(self, lease: HeldLease, task: int) -> Compute | Load | None:
        if self.unsettled is None:
            lease.waiting.popleft()
            lease.running = task
            self.loaded = None
            return Compute(lease, task)
        if self.loaded is None:
            self.loaded = (lease, task)
            return Load(lease, task)
        return None

    def _take(self, lease: HeldLease, tasks: list[int]) -> None:
        lease.granted.update(tasks)
        if not lease.closed:
            lease.waiting.extend(tasks)
        if self.draining:
            self._wind_up(lease)

    def _wind_up(self, lease: HeldLease) -> None:
        if lease.push_unasked:
            lease.waiting.clear()
        elif not lease.begun:
            lease.cancelled = True

    def _settlement(self, lease: HeldLease, task: int) -> Settle | None:
        if lease.cancelled:
            return Settle(lease, task, False)
        if lease.collected is not None:
            keep: bool | None = task in lease.collected
        else:
            keep = True if lease.keep_in_advance else lease.verdicts.get(task)
        if keep is None or (keep and not lease.holds_sum and self._sum_is_leaving()):
            return None
        return Settle(lease, task, keep)

    def _sum_is_leaving(self) -> bool:
        """A sum buffer will be free soon: worth waiting for, where another would cost a model's size of memory."""
        return any(lease.delivering and lease.holds_sum for lease in self._leases.values())

    def _closing(self, lease: HeldLease) -> Step:
        # What was added cannot be taken out again: a sum with a task too many is of no use.
        usable = lease.summed and (lease.collected is None or lease.summed <= lease.collected)
        return Deliver(lease) if usable else End(lease)
