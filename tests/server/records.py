"""Makes records as the coordinator writes them, for tests of the books."""

from __future__ import annotations

from collections.abc import Sequence

from paceline.coordination.effects import LeaseRecord, LeaseVerdict, RoundRecord, WorkerRecord
from paceline.coordination.events import Hello, TaskResult
from paceline.coordination.ids import Incarnation, LeaseId, SessionId, TaskId, WorkerName
from paceline.coordination.snapshot import Snapshot, WorkerSnapshot

TASKS = 4  # of each worker in a round


def hello(name: str, session: int = 1) -> Hello:
    return Hello(
        session=SessionId(session),
        name=WorkerName(name),
        incarnation=Incarnation(f"inc-{name}"),
        address=f"host pid {session}",
        device="cpu",
        pace=2.0,
    )


def worker_record(name: str) -> WorkerRecord:
    return WorkerRecord(
        name=WorkerName(name),
        planned=TASKS,
        used=TASKS - 1,
        wasted=1,
        replanned=1,
        used_s=0.3,
        wasted_s=0.1,
        idle_s=0.05,
        data_s=0.075,
    )


def round_record(number: int, names: Sequence[str] = ("w1", "w2"), loss: float = 0.5) -> RoundRecord:
    per_round = TASKS * len(names)
    return RoundRecord(
        round=number,
        version=number,
        allocation=tuple((WorkerName(name), TASKS) for name in names),
        reason="by score",
        opened_s=float(number),
        seconds=0.5 + number / 1000,
        loss=loss,
        samples=32 * per_round,
        tasks_used=per_round,
        workers=tuple(worker_record(name) for name in names),
        next_tasks=(per_round * number + 3,),
        returned=(TaskId(7), TaskId(3), TaskId(4)),
        divisor=number / 3,
        state_crc32c=2**32 - number,
        means=(("accuracy", 1.0 - 1.0 / number),),
    )


def lease_record(number: int, place: int, name: str, workers: int = 2) -> LeaseRecord:
    """The lease of the worker in this place (0-based) of round `number`: its tasks but the last, which is dropped."""
    first = TASKS * (workers * (number - 1) + place)
    granted = tuple(TaskId(task) for task in range(first, first + TASKS))
    return LeaseRecord(
        lease=LeaseId((1 << 40) + workers * (number - 1) + place),
        worker=WorkerName(name),
        incarnation=Incarnation(f"inc-{name}"),
        round=number,
        version=number - 1,
        granted=granted,
        kept=granted[:-1],
        dropped=granted[-1:],
        results=tuple(
            TaskResult(task=task, seconds=0.1 + task / 7, loss_sum=task / 3, samples=32) for task in granted[:-1]
        ),
        seconds=0.4,
        wasted_s=0.1,
        weight=0.5,
        verdict=LeaseVerdict.PARTLY_APPLIED,
    )


def worker_snapshot(name: str, *, state: str = "busy", mean_task_s: float | None = 0.1) -> WorkerSnapshot:
    return WorkerSnapshot(
        name=WorkerName(name),
        state=state,
        device="cpu",
        address="host pid 1",
        tasks_done=12,
        busy_s=1.2,
        mean_task_s=mean_task_s,
        radius_s=None if mean_task_s is None else 0.02,
        allocation=4,
        pace=None if mean_task_s is None else 2.0,
    )


def snapshot(*workers: WorkerSnapshot) -> Snapshot:
    return Snapshot(
        state="training",
        situation="round 3: 2 tasks in",
        round=3,
        version=2,
        reason="w1 is twice as fast as w2",
        workers=workers,
    )
