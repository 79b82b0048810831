"""A lease: the right and duty of one incarnation to do tasks at one version.

    granted -> running -> kept -> (verified: the lease ends, APPLIED)
                  |         `---> back to the queue (holder lost, push refused, task failed)
                  |-> dropped, failed, given up: back to the queue

With keep_in_advance a task is kept from the moment it is granted, and runs at the same time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from paceline.coordination.effects import LeaseRecord, LeaseVerdict
from paceline.coordination.events import TaskResult
from paceline.coordination.ids import Incarnation, LeaseId, PushId, TaskId, WorkerName
from paceline.coordination.plan import Share


class Phase(Enum):
    """What the holder has been told last."""

    OPEN = "open"
    COLLECTING = "collecting"
    CANCELLING = "cancelling"


@dataclass(slots=True, kw_only=True)
class Lease:
    """One live lease.

    Attributes:
        granted: all task ids, in the order of granting.
        running: granted and not finished.
        share: whose its tasks are in the round's counts.
        undecided: finished while a round was closing, in a plan that applies late work: the next round decides.
        kept: in the sum that will be pushed.
        dropped: finished, but not wanted.
        given_up: taken from the worker unfinished; a late report of one changes nothing but the bill.
        results: of finished tasks; claimed_s: the sum of their seconds.
        push: the latest attempt that is being staged.
        measures: its tasks are validation tasks, see validating.py.
    """

    id: LeaseId
    worker: WorkerName
    incarnation: Incarnation
    share: Share
    version: int
    in_advance: bool
    task_limit_s: float | None
    opened_s: float
    phase: Phase = Phase.OPEN
    granted: list[TaskId] = field(default_factory=list)
    running: dict[TaskId, None] = field(default_factory=dict)
    undecided: dict[TaskId, None] = field(default_factory=dict)
    kept: dict[TaskId, None] = field(default_factory=dict)
    dropped: list[TaskId] = field(default_factory=list)
    given_up: set[TaskId] = field(default_factory=set)
    results: dict[TaskId, TaskResult] = field(default_factory=dict)
    claimed_s: float = 0.0
    push: PushId | None = None
    wasted_s: float = 0.0
    measures: bool = False

    def grant(self, tasks: list[TaskId]) -> None:
        """Add tasks to be done."""
        self.granted += tasks
        self.running.update(dict.fromkeys(tasks))
        if self.in_advance:
            self.kept.update(dict.fromkeys(tasks))

    def give_up_running(self) -> list[TaskId]:
        """Take the unfinished tasks away and return them; in an OPEN in-advance lease they are no longer kept."""
        tasks = list(self.running)
        self.running.clear()
        self.given_up.update(tasks)
        return tasks

    def record(self, round_number: int, now: float, weight: float, verdict: LeaseVerdict) -> LeaseRecord:
        """Write the lease's row of the ledger; `kept` is what was applied."""
        applied = verdict in (LeaseVerdict.APPLIED, LeaseVerdict.PARTLY_APPLIED)
        kept = tuple(sorted(self.kept)) if applied else ()
        return LeaseRecord(
            lease=self.id,
            worker=self.worker,
            incarnation=self.incarnation,
            round=round_number,
            version=self.version,
            granted=tuple(self.granted),
            kept=kept,
            dropped=tuple(task for task in self.granted if task not in self.kept or not applied),
            results=tuple(self.results[task] for task in kept),
            seconds=now - self.opened_s,
            wasted_s=self.wasted_s,
            weight=weight,
            verdict=verdict,
        )
