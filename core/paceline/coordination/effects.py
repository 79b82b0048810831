"""What the coordinator orders. Effects are carried out in the order in which they are returned.

An effect addressed to a session that has closed meanwhile is dropped by the shell: the machine says it again when the
incarnation resumes. Everything said to a worker is idempotent by lease (and task).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from paceline.coordination.cut import Cut
from paceline.coordination.events import Rejection, TaskResult
from paceline.coordination.ids import Incarnation, LeaseId, PushId, SessionId, TaskId, WorkerName

# ---- to a worker ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Welcome:
    """The session is the worker's now. `resumed`: it keeps its leases, and what was said about them follows again."""

    session: SessionId
    name: WorkerName
    incarnation: Incarnation
    resumed: bool


class RefusalCode(Enum):
    """Why a worker is not taken."""

    NAME_IN_USE = "name-in-use"
    RUN_OVER = "run-over"
    SUPERSEDED = "superseded"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Refuse:
    """Tell the session why it is not taken, and close it. LOST and RUN_OVER are no fault of the worker."""

    session: SessionId
    code: RefusalCode
    reason: str


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask the worker of this session to answer at once (`ProbeAnswered`): a newcomer claims its name."""

    session: SessionId


@dataclass(frozen=True, slots=True, kw_only=True)
class SendLease:
    """Give a worker a lease with its first tasks.

    Attributes:
        keep_in_advance: all tasks of the lease are kept: no verdicts will follow.
        push_unasked: push as soon as all granted tasks are finished; else wait for `Collect`.
        task_limit_s: give up a task that takes longer (None: never).
        version: of the model that the tasks are done on; the shell sends it along or lets the worker pull it.
    """

    session: SessionId
    lease: LeaseId
    version: int
    tasks: tuple[TaskId, ...]
    keep_in_advance: bool
    push_unasked: bool
    task_limit_s: float | None = None


@dataclass(frozen=True, slots=True)
class SendGrant:
    """Grant further tasks into a lease that the worker holds."""

    session: SessionId
    lease: LeaseId
    tasks: tuple[TaskId, ...]


@dataclass(frozen=True, slots=True)
class SendVerdict:
    """Tell whether a reported task is kept (add it to the lease's sum) or dropped."""

    session: SessionId
    lease: LeaseId
    task: TaskId
    keep: bool


@dataclass(frozen=True, slots=True)
class SendCollect:
    """Order the lease's one contribution: exactly these kept tasks. Whatever else the lease holds is given up."""

    session: SessionId
    lease: LeaseId
    kept: tuple[TaskId, ...]


@dataclass(frozen=True, slots=True)
class SendCancel:
    """Give up a lease: nothing of it is wanted. The worker answers `LeaseEnded` (if it still knows the lease)."""

    session: SessionId
    lease: LeaseId


@dataclass(frozen=True, slots=True)
class Goodbye:
    """The worker may leave with exit code 0: drained, or the run is over."""

    session: SessionId
    reason: str


@dataclass(frozen=True, slots=True)
class CloseSession:
    """End a session (its worker is lost or superseded)."""

    session: SessionId
    reason: str


# ---- about pushes --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StagePush:
    """The offer is in order: stage and verify it."""

    push: PushId


@dataclass(frozen=True, slots=True)
class RefusePush:
    """The push is not taken; the worker gives up the lease. To be counted by `rejection`."""

    push: PushId
    rejection: Rejection
    message: str


@dataclass(frozen=True, slots=True)
class AddContribution:
    """Add the verified stage to the sum, multiplied by `weight`, and acknowledge it.

    Attributes:
        measured: the policy will ask for the contributions' variance.
    """

    push: PushId
    lease: LeaseId
    weight: float
    measured: bool = False


@dataclass(frozen=True, slots=True)
class AcknowledgePush:
    """This contribution was taken before: say so again, add nothing, free its stage if it has one."""

    push: PushId


# ---- the model and the books -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyUpdate:
    """Close the round: divide the sum, step, and answer `UpdateApplied` (or `UpdateFailed`).

    Attributes:
        version: the version that the update makes.
        samples: samples in the sum (unweighted); `divisor` what the sum is divided by.
        loss: mean loss of the round, sum of the losses over samples.
        scalars: numbers to compute for the policy, see `plan.SCALARS`.
        mark: from now on "distance" is measured from the parameters as they are before this update.
    """

    version: int
    samples: int
    divisor: float
    loss: float
    tasks: int
    scalars: tuple[str, ...]
    mark: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundPlanned:
    """A decision, for status, log and metrics.

    Attributes:
        allocation: tasks per worker in the order of the view.
        again: a plan for lost tasks inside the round.
    """

    round: int
    version: int
    allocation: tuple[tuple[WorkerName, int], ...]
    reason: str
    again: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRecord:
    """What one worker did in a round, for metrics and statistics.

    Attributes:
        used_s, wasted_s: worker seconds of tasks applied, and of all others.
        idle_s: barrier idle: from its last contribution to the close of the round.
        data_s: of used_s, the seconds of waiting for samples.
    """

    name: WorkerName
    planned: int
    used: int
    wasted: int
    replanned: int
    used_s: float
    wasted_s: float
    idle_s: float
    data_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRecord:
    """A committed round, one row of the ledger.

    Attributes:
        next_tasks, returned: the task stream's position: the first id never handed out (one for each part of the data
            where they belong to workers), and those handed out and not applied so far, in workers' hands or not.
        divisor: what the sum was divided by, where that is not the samples.
        state_crc32c: checksum of the version's bytes, as the shell gave it.
        means: of the job's further sums, by name, over the samples of the tasks that gave them.
        skipped: the sum was not finite, and the parameters stayed what they were.
    """

    round: int
    version: int
    allocation: tuple[tuple[WorkerName, int], ...]
    reason: str
    opened_s: float
    seconds: float
    loss: float
    samples: int
    tasks_used: int
    workers: tuple[WorkerRecord, ...]
    next_tasks: tuple[int, ...]
    returned: tuple[TaskId, ...]
    divisor: float | None = None
    state_crc32c: int | None = None
    means: tuple[tuple[str, float], ...] = ()
    skipped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeVersion:
    """All validation tasks of a version are in: make its metrics, and answer `VersionJudged`.

    Attributes:
        means: of the job's sums, by name, over the samples of the tasks that gave them.
        tasks: that were done; worker_s: the seconds that workers took for them.
        seconds: from the first grant to the last report.
    """

    version: int
    means: tuple[tuple[str, float], ...]
    tasks: int
    worker_s: float
    seconds: float


class LeaseVerdict(Enum):
    """How a lease ended."""

    APPLIED = "applied"
    PARTLY_APPLIED = "partly-applied"
    DROPPED = "dropped"
    CANCELLED = "cancelled"
    FAILED = "failed"
    LOST = "lost"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRecord:
    """A finished lease, one row of the ledger.

    Attributes:
        round: the round whose update it entered (or in which it ended).
        version: the model version its tasks were done at; staleness = round - 1 - version.
        granted, kept, dropped: task ids; kept are those applied.
        results: of the kept tasks.
        weight: factor in the sum.
    """

    lease: LeaseId
    worker: WorkerName
    incarnation: Incarnation
    round: int
    version: int
    granted: tuple[TaskId, ...]
    kept: tuple[TaskId, ...]
    dropped: tuple[TaskId, ...]
    results: tuple[TaskResult, ...]
    seconds: float
    wasted_s: float
    weight: float
    verdict: LeaseVerdict


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerChanged:
    """A worker joined, was resumed, drained, was lost, put aside or taken back: for the log, status and the ledger."""

    name: WorkerName
    incarnation: Incarnation
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class Warn:
    """Something a person should hear of, once."""

    text: str


@dataclass(frozen=True, slots=True)
class SaveCheckpoint:
    """Save this cut together with the model, which is at its version until further effects; then say CheckpointSaved.

    Its rounds have been recorded.
    """

    cut: Cut


class Outcome(Enum):
    """How a run ends."""

    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Finish:
    """The run is over: save the state, end the sessions.

    Attributes:
        reason: one line.
        task: the task that failed everywhere, where that is the reason; `detail` its workers' last traceback.
        try_again: it was stopped for want of workers; the same command may find some later.
    """

    outcome: Outcome
    reason: str
    task: TaskId | None = None
    detail: str = ""
    try_again: bool = False


Effect = (
    Welcome
    | Refuse
    | Probe
    | SendLease
    | SendGrant
    | SendVerdict
    | SendCollect
    | SendCancel
    | Goodbye
    | CloseSession
    | StagePush
    | RefusePush
    | AddContribution
    | AcknowledgePush
    | ApplyUpdate
    | RoundPlanned
    | RoundRecord
    | LeaseRecord
    | JudgeVersion
    | WorkerChanged
    | Warn
    | SaveCheckpoint
    | Finish
)

Scalars = Mapping[str, float]
