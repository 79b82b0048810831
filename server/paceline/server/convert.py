"""Turns protocol messages into events and effects into protocol messages; nothing here decides anything.

What a worker sends is checked for form: text is cut to a length, numbers are finite where a number is meant. A message
that means nothing raises ProtocolError, and its worker is told so.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from paceline.coordination import effects, events
from paceline.coordination.events import Rejection, TaskFailure, TaskResult
from paceline.coordination.ids import Incarnation, LeaseId, PushId, SessionId, TaskId, WorkerName
from paceline.errors import ProtocolError
from paceline.layout import ContributionLayout
from paceline.protos import coordinator_pb2 as pb
from paceline.round_sums import MOST_SUMS, NAME, check_sums
from paceline.settings import WORKER_NAME
from paceline.tasks import task_name

INCARNATION = re.compile(r"[0-9a-f]{32}")

_WORDS = 200
_TRACEBACK = 16 * 1024

_FAILURES = {
    pb.TASK_OUTCOME_EXCEPTION: TaskFailure.EXCEPTION,
    pb.TASK_OUTCOME_NON_FINITE: TaskFailure.NON_FINITE,
    pb.TASK_OUTCOME_OUT_OF_MEMORY: TaskFailure.OUT_OF_MEMORY,
    pb.TASK_OUTCOME_TIME_LIMIT: TaskFailure.TIME_LIMIT,
}
REFUSALS = {
    effects.RefusalCode.NAME_IN_USE: pb.REFUSAL_CODE_NAME_IN_USE,
    effects.RefusalCode.RUN_OVER: pb.REFUSAL_CODE_RUN_OVER,
    effects.RefusalCode.SUPERSEDED: pb.REFUSAL_CODE_SUPERSEDED,
    effects.RefusalCode.LOST: pb.REFUSAL_CODE_LOST,
}
OUTCOMES = {
    effects.Outcome.DONE: pb.RUN_OUTCOME_DONE,
    effects.Outcome.FAILED: pb.RUN_OUTCOME_FAILED,
    effects.Outcome.STOPPED: pb.RUN_OUTCOME_STOPPED,
}


# ---- from a worker ---------------------------------------------------------------------------------------------------


def hello(session: SessionId, message: pb.Hello) -> events.Hello:
    """Read a hello of this protocol version.

    Raises:
        ProtocolError: a name or an incarnation that is none.
    """
    if not WORKER_NAME.fullmatch(message.name):
        raise ProtocolError(f"name is {message.name[:80]!r}: expected 1 to 64 of the characters A-Z a-z 0-9 . _ -")
    if not INCARNATION.fullmatch(message.incarnation):
        raise ProtocolError(f"incarnation is {message.incarnation[:80]!r}: expected 32 hexadecimal digits")
    return events.Hello(
        session=session,
        name=WorkerName(message.name),
        incarnation=Incarnation(message.incarnation),
        address=f"{one_line(message.host) or 'unknown host'} pid {message.pid}",
        device=one_line(message.device) or "unknown",
        pace=message.pace if 0 < message.pace < math.inf else None,
        leases=tuple(LeaseId(lease) for lease in message.leases),
    )


def report(session: SessionId, message: pb.Report) -> events.TaskReported | events.TaskFailed:
    """Read a report.

    Raises:
        ProtocolError: an outcome that is none, numbers that are not finite, or sums that no job can give.
    """
    lease, task = LeaseId(message.lease), TaskId(message.task)
    if not 0 <= message.seconds < math.inf:
        raise ProtocolError(f"task {task} took {message.seconds} s: expected a finite number")
    if message.outcome == pb.TASK_OUTCOME_DONE:
        if not math.isfinite(message.loss_sum):
            raise ProtocolError(f"the loss of task {task} is {message.loss_sum}: expected a finite number")
        result = TaskResult(
            task=task,
            seconds=message.seconds,
            loss_sum=message.loss_sum,
            samples=message.samples,
            sums=_reported_sums(message),
        )
        return events.TaskReported(session, lease, result)
    failure = _FAILURES.get(message.outcome)
    if failure is None:
        raise ProtocolError(f"the outcome of task {task} is {message.outcome}: expected one of TaskOutcome")
    return events.TaskFailed(
        session=session,
        lease=lease,
        task=task,
        failure=failure,
        seconds=message.seconds,
        message=one_line(message.message),
        traceback_text=message.traceback[-_TRACEBACK:],
    )


def _reported_sums(message: pb.Report) -> tuple[tuple[str, float], ...]:
    if any(len(row.sums) != 1 for row in message.sums) or len({row.name for row in message.sums}) != len(message.sums):
        raise ProtocolError(f"the sums of {task_name(message.task)}: expected one value of each name")
    sums = [(row.name, row.sums[0]) for row in message.sums]
    try:
        check_sums(dict(sums), "validate()", taken=())
    except ValueError as error:
        raise ProtocolError(f"the sums of {task_name(message.task)}: {one_line(str(error))}") from error
    return tuple(sorted(sums))


def lease_ended(session: SessionId, message: pb.LeaseEnded) -> events.LeaseEnded:
    """Read the end of a lease."""
    wasted_s = message.wasted_s if 0 <= message.wasted_s < math.inf else 0.0
    return events.LeaseEnded(session, LeaseId(message.lease), wasted_s)


def offered(push: PushId, manifest: pb.Manifest) -> events.ContributionOffered:
    """Read the announcement of a push; rows that do not go together give no results, which no lease allows."""
    return events.ContributionOffered(
        push=push,
        lease=LeaseId(manifest.lease),
        incarnation=Incarnation(manifest.incarnation),
        version=manifest.version,
        results=_results(manifest),
        wasted_s=manifest.wasted_s if 0 <= manifest.wasted_s < math.inf else 0.0,
    )


class ManifestCheck:
    """Compares what manifests announce with the layout of contributions.

    Args:
        layout: of a contribution to this run's model.

    Attributes:
        nbytes: of a whole contribution.
    """

    def __init__(self, layout: ContributionLayout) -> None:
        self.nbytes = layout.nbytes
        self._expected = [(segment.name, segment.dtype, segment.nbytes) for segment in layout.segments]

    def fault(self, manifest: pb.Manifest) -> tuple[Rejection, str] | None:
        """Say what is wrong with a manifest apart from its lease, version and tasks; None if nothing is."""
        if manifest.codec != pb.CODEC_IDENTITY:
            return Rejection.WRONG_DTYPE, f"codec is {manifest.codec}: expected {pb.CODEC_IDENTITY}, identity"
        announced = [(segment.name, segment.dtype, segment.bytes) for segment in manifest.segments]
        if announced != self._expected:
            return self._segment_fault(announced)
        if manifest.total_bytes != self.nbytes:
            return Rejection.WRONG_SIZE, f"{manifest.total_bytes} bytes announced: expected {self.nbytes}"
        return None

    def _segment_fault(self, announced: list[tuple[str, str, int]]) -> tuple[Rejection, str]:
        if [name for name, *_ in announced] != [name for name, *_ in self._expected]:
            names = ", ".join(one_line(name) for name, *_ in announced[:8]) or "none"
            expected = ", ".join(name for name, *_ in self._expected)
            return Rejection.WRONG_SIZE, f"segments are {names}: expected {expected}"
        for (name, dtype, nbytes), (_, wanted, wanted_bytes) in zip(announced, self._expected, strict=True):
            if dtype != wanted:
                return Rejection.WRONG_DTYPE, f"dtype of {name} is {one_line(dtype)!r}: expected {wanted!r}"
            if nbytes != wanted_bytes:
                return Rejection.WRONG_SIZE, f"{name} has {nbytes} bytes: expected {wanted_bytes}"
        raise AssertionError("equal segments have no fault")


def one_line(text: str) -> str:
    """Cut what a peer wrote to one short printable line."""
    return "".join(character if character.isprintable() else " " for character in text[:_WORDS]).strip()


def _results(manifest: pb.Manifest) -> tuple[TaskResult, ...]:
    waits = manifest.data_s or [0.0] * len(manifest.tasks)
    slices = manifest.micro_steps or [0] * len(manifest.tasks)
    rows = (manifest.tasks, manifest.seconds, manifest.loss_sums, manifest.samples, waits, slices)
    if len({len(row) for row in rows}) != 1:
        return ()
    sums = _sums(manifest)
    if sums is None:
        return ()
    return tuple(
        TaskResult(
            task=TaskId(task),
            seconds=seconds,
            loss_sum=loss_sum,
            samples=samples,
            data_s=_part_of(seconds, data_s),
            sums=tuple((name, values[place]) for name, values in sums),
            micro_steps=micro_steps,
        )
        for place, (task, seconds, loss_sum, samples, data_s, micro_steps) in enumerate(zip(*rows, strict=True))
    )


def _sums(manifest: pb.Manifest) -> list[tuple[str, Sequence[float]]] | None:
    """Read the further sums; None: they are none that a job can give."""
    if len(manifest.sums) > MOST_SUMS or len({row.name for row in manifest.sums}) != len(manifest.sums):
        return None
    if not all(NAME.fullmatch(row.name) and len(row.sums) == len(manifest.tasks) for row in manifest.sums):
        return None
    return [(row.name, row.sums) for row in manifest.sums]


def _part_of(seconds: float, claimed_s: float) -> float:
    """Cut what is claimed to be a part of the seconds; 0 for what is none."""
    return min(claimed_s, seconds) if claimed_s >= 0.0 else 0.0


# ---- to a worker -----------------------------------------------------------------------------------------------------


def refused(effect: effects.Refuse) -> pb.ServerMessage:
    """Write why a worker is not taken."""
    return refusal(REFUSALS[effect.code], effect.reason)


def refusal(code: pb.RefusalCode, reason: str) -> pb.ServerMessage:
    """Write why a worker is not taken, for reasons that the coordinator never hears of too."""
    return pb.ServerMessage(refused=pb.Refused(code=code, reason=reason))


def lease(
    effect: effects.SendLease, loss_scale: float = 1.0, state: bytes = b"", state_crc32c: int = 0
) -> pb.ServerMessage:
    """Write a lease, with the image of its version where that is small and the worker has not got it."""
    return pb.ServerMessage(
        lease=pb.Lease(
            lease=effect.lease,
            version=effect.version,
            tasks=ranges(effect.tasks),
            keep_in_advance=effect.keep_in_advance,
            push_unasked=effect.push_unasked,
            task_limit_s=effect.task_limit_s or 0.0,
            state=state,
            state_crc32c=state_crc32c,
            loss_scale=loss_scale,
        )
    )


def grant(effect: effects.SendGrant) -> pb.ServerMessage:
    """Write further tasks of a lease."""
    return pb.ServerMessage(grant=pb.Grant(lease=effect.lease, tasks=ranges(effect.tasks)))


def verdict(effect: effects.SendVerdict) -> pb.ServerMessage:
    """Write whether a task is kept."""
    return pb.ServerMessage(verdict=pb.Verdict(lease=effect.lease, task=effect.task, keep=effect.keep))


def collect(effect: effects.SendCollect) -> pb.ServerMessage:
    """Write which tasks the contribution shall hold."""
    return pb.ServerMessage(collect=pb.Collect(lease=effect.lease, kept=ranges(effect.kept)))


def cancel(effect: effects.SendCancel) -> pb.ServerMessage:
    """Write that a lease is wanted no more."""
    return pb.ServerMessage(cancel=pb.Cancel(lease=effect.lease))


def goodbye(outcome: pb.RunOutcome, reason: str) -> pb.ServerMessage:
    """Write that the worker may leave."""
    return pb.ServerMessage(goodbye=pb.Goodbye(outcome=outcome, reason=reason))


def accepted(lease_id: LeaseId) -> pb.PushResult:
    """Write that a contribution was taken."""
    return pb.PushResult(lease=lease_id, verdict=pb.PUSH_VERDICT_ACCEPTED)


def rejected(lease_id: LeaseId, rejection: Rejection, message: str) -> pb.PushResult:
    """Write that a contribution was not taken; the lease is over."""
    return pb.PushResult(lease=lease_id, verdict=pb.PUSH_VERDICT_REFUSED, rejection=rejection.value, message=message)


def ranges(tasks: Iterable[TaskId]) -> Sequence[pb.TaskRange]:
    """Write task ids, in their order, as runs of neighbours."""
    runs: list[pb.TaskRange] = []
    for task in tasks:
        if runs and task == runs[-1].first + runs[-1].count:
            runs[-1].count += 1
        else:
            runs.append(pb.TaskRange(first=task, count=1))
    return runs
