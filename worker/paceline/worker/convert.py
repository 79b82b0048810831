"""Turns wire messages into the worker's own types, and back. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from paceline.coordination.events import TaskFailure, TaskResult
from paceline.layout import ContributionLayout
from paceline.protos import coordinator_pb2 as pb
from paceline.tasks import is_validation
from paceline.worker.leases import FailedTask, HeldLease

# Of a failure, of which people see the beginning and the end: a server takes no message without bounds.
MESSAGE_CHARACTERS = 1000
TRACEBACK_CHARACTERS = 64 * 1024

_OUTCOMES = {
    TaskFailure.EXCEPTION: pb.TASK_OUTCOME_EXCEPTION,
    TaskFailure.NON_FINITE: pb.TASK_OUTCOME_NON_FINITE,
    TaskFailure.OUT_OF_MEMORY: pb.TASK_OUTCOME_OUT_OF_MEMORY,
    TaskFailure.TIME_LIMIT: pb.TASK_OUTCOME_TIME_LIMIT,
}


def task_ids(ranges: Iterable[pb.TaskRange]) -> list[int]:
    """Write ranges out, in their order."""
    return [task for part in ranges for task in range(part.first, part.first + part.count)]


def held_lease(message: pb.Lease) -> HeldLease:
    """Read a lease's terms; its tasks are read apart."""
    return HeldLease(
        id=message.lease,
        version=message.version,
        keep_in_advance=message.keep_in_advance,
        push_unasked=message.push_unasked,
        task_limit_s=message.task_limit_s,
        loss_scale=message.loss_scale or 1.0,
    )


def report(lease_id: int, result: TaskResult, contribution: pb.Contribution | None = None) -> pb.WorkerMessage:
    """Report a finished task, with the lease's contribution where it is the last one."""
    return pb.WorkerMessage(
        report=pb.Report(
            lease=lease_id,
            task=result.task,
            outcome=pb.TASK_OUTCOME_DONE,
            seconds=result.seconds,
            loss_sum=result.loss_sum,
            samples=result.samples,
            sums=_sums([result]) if is_validation(result.task) else (),
            contribution=contribution,
        )
    )


def failure_report(lease_id: int, failed: FailedTask) -> pb.WorkerMessage:
    """Report a task that failed."""
    return pb.WorkerMessage(
        report=pb.Report(
            lease=lease_id,
            task=failed.task,
            outcome=_OUTCOMES[failed.failure],
            seconds=failed.seconds,
            message=failed.message[:MESSAGE_CHARACTERS],
            traceback=failed.traceback_text[-TRACEBACK_CHARACTERS:],
        )
    )


def lease_ended(lease_id: int, wasted_s: float) -> pb.WorkerMessage:
    """Say that nothing will be pushed for a lease."""
    return pb.WorkerMessage(lease_ended=pb.LeaseEnded(lease=lease_id, wasted_s=wasted_s))


def segment_infos(layout: ContributionLayout) -> list[pb.SegmentInfo]:
    """Describe a contribution's image."""
    return [pb.SegmentInfo(name=s.name, dtype=s.dtype, bytes=s.nbytes) for s in layout.segments]


def _sums(results: Sequence[TaskResult]) -> list[pb.NamedSums]:
    """Write the further sums that all tasks have."""
    rows = [dict(result.sums) for result in results]
    names = [name for name in sorted(rows[0]) if all(name in row for row in rows)] if rows else []
    return [pb.NamedSums(name=name, sums=[row[name] for row in rows]) for name in names]


def manifest(lease: HeldLease, incarnation: str, segments: Sequence[pb.SegmentInfo]) -> pb.Manifest:
    """Say what a lease's sum holds: its tasks in ascending order."""
    results = [lease.results[task] for task in sorted(lease.summed)]
    return pb.Manifest(
        lease=lease.id,
        incarnation=incarnation,
        version=lease.version,
        tasks=[result.task for result in results],
        seconds=[result.seconds for result in results],
        loss_sums=[result.loss_sum for result in results],
        samples=[result.samples for result in results],
        data_s=[result.data_s for result in results] if any(result.data_s for result in results) else (),
        sums=_sums(results),
        micro_steps=[result.micro_steps for result in results] if any(result.micro_steps for result in results) else (),
        wasted_s=lease.wasted_s,
        codec=pb.CODEC_IDENTITY,
        total_bytes=sum(segment.bytes for segment in segments),
        segments=segments,
    )
