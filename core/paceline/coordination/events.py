"""What happens to the coordinator. Each event says one thing that a shell saw; none carries a clock or a tensor.

Whatever a peer can cause is answered by effects and never raises. What only our own shell can get wrong (a push id that
it never announced, an update that was not ordered) raises `MachineError` and changes nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from paceline.coordination.ids import Incarnation, LeaseId, PushId, SessionId, TaskId, WorkerName


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """One finished task as its worker tells it.

    Attributes:
        seconds: task seconds by the worker's monotonic clock.
        loss_sum: sum of the losses over the samples.
        samples: number of samples (the n of a loss that returns (sum, n)).
        data_s: of the seconds, those in which the worker waited for the task's samples.
        sums: further sums over the samples, by name.
        micro_steps: slices that the task was computed in; 0: as many as the settings say.
    """

    task: TaskId
    seconds: float
    loss_sum: float
    samples: int
    data_s: float = 0.0
    sums: tuple[tuple[str, float], ...] = ()
    micro_steps: int = 0


class TaskFailure(Enum):
    """Why a task has no result."""

    EXCEPTION = "exception"
    NON_FINITE = "non-finite"
    OUT_OF_MEMORY = "out-of-memory"
    TIME_LIMIT = "time-limit"


class Rejection(Enum):
    """Why a contribution or a report was not accepted; the label of a metric, so the set is closed."""

    UNKNOWN_LEASE = "unknown-lease"
    STALE = "stale"
    WRONG_VERSION = "wrong-version"
    WRONG_TASKS = "wrong-tasks"
    WRONG_SIZE = "wrong-size"
    WRONG_DTYPE = "wrong-dtype"
    CHECKSUM = "checksum"
    TRUNCATED = "truncated"
    NON_FINITE = "non-finite"
    TOO_SLOW = "too-slow"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """A worker opened a session. Protocol version and name syntax have been checked by the shell.

    Attributes:
        leases: leases that the incarnation still holds: a resumed session; empty for a new worker.
        address: "host pid N", used to name the holder of a name.
        pace: its `--pace` if it told one, for the report only.
    """

    session: SessionId
    name: WorkerName
    incarnation: Incarnation
    address: str
    device: str
    pace: float | None = None
    leases: tuple[LeaseId, ...] = ()


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker has its job built, agreed on and warmed up; it may be given tasks."""

    session: SessionId


@dataclass(frozen=True, slots=True)
class Heard:
    """Something came from this worker. `progress`: bytes of a push or pull or a micro-step, not a mere heartbeat.

    Not needed beside another event of the same worker: every event of a session counts as heard and as progress.
    """

    incarnation: Incarnation
    progress: bool


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """The control connection ended, by whatever cause."""

    session: SessionId


@dataclass(frozen=True, slots=True)
class ProbeAnswered:
    """The old session answered the question whether its worker still lives (see `effects.Probe`)."""

    session: SessionId


@dataclass(frozen=True, slots=True)
class DrainRequested:
    """The worker will finish its present task, push what it has and leave."""

    session: SessionId


@dataclass(frozen=True, slots=True)
class PauseRequested:
    """Somebody wants a worker's machine for something else, or does so no more (`paused` False).

    What the worker holds it ends; then it gets nothing. This belongs to the name, whoever comes under it.
    """

    name: WorkerName
    paused: bool


@dataclass(frozen=True, slots=True)
class TaskReported:
    """A worker finished a task; a hint until its contribution is verified."""

    session: SessionId
    lease: LeaseId
    result: TaskResult


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFailed:
    """A worker could not finish a task.

    Attributes:
        seconds: what it cost until it failed.
        message: one line; `traceback_text` the worker's traceback.
    """

    session: SessionId
    lease: LeaseId
    task: TaskId
    failure: TaskFailure
    seconds: float
    message: str = ""
    traceback_text: str = ""


@dataclass(frozen=True, slots=True)
class LeaseEnded:
    """The worker is done with a lease and has nothing to push; `wasted_s` went into tasks that it gave up."""

    session: SessionId
    lease: LeaseId
    wasted_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ContributionOffered:
    """A push was announced by its manifest. Nothing of it has been staged."""

    push: PushId
    lease: LeaseId
    incarnation: Incarnation
    version: int
    results: tuple[TaskResult, ...]
    wasted_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ContributionVerified:
    """All bytes of an accepted push are staged and have passed every check. The results are those of its offer."""

    push: PushId


@dataclass(frozen=True, slots=True)
class ContributionRejected:
    """An accepted push failed a check of the shell (sizes, checksums, finiteness)."""

    push: PushId
    rejection: Rejection
    message: str = ""


@dataclass(frozen=True, slots=True)
class ContributionInterrupted:
    """An accepted push broke off with its connection. Its worker may push the same lease again."""

    push: PushId


@dataclass(frozen=True, slots=True)
class VersionGone:
    """A worker asked for a version that no longer exists: it gives the lease back."""

    session: SessionId
    lease: LeaseId


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateApplied:
    """The ordered update was made: the model now is `version`.

    Attributes:
        scalars: those that the plan asked for; none where it was skipped.
        state_crc32c: checksum of the version's bytes, for the ledger; None where there are none (in the simulator).
        skipped: the sum was not finite, so that the parameters are those of the version before.
    """

    version: int
    loss: float
    scalars: tuple[tuple[str, float], ...] = ()
    state_crc32c: int | None = None
    skipped: bool = False


@dataclass(frozen=True, slots=True)
class UpdateFailed:
    """The ordered update raised (the user's optimizer or hook, or parameters that are not finite)."""

    message: str


@dataclass(frozen=True, slots=True)
class VersionJudged:
    """The metrics of a version that workers measured are known, and what follows from them was posted before."""

    version: int


@dataclass(frozen=True, slots=True)
class StopRequested:
    """End the run.

    Attributes:
        reached: a goal was reached: it ends as done, else as stopped.
        grace_s: the present round may take so long to close, then it is abandoned; 0: at once.
    """

    reason: str
    reached: bool = False
    grace_s: float = math.inf


@dataclass(frozen=True, slots=True)
class CheckpointRequested:
    """Somebody wants the present version saved."""


@dataclass(frozen=True, slots=True)
class CheckpointSaved:
    """The ordered cut was saved; or it was not, for the reason `fault`, and no earlier one was harmed."""

    version: int
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Tick:
    """The time named by `Machine.deadline` has come."""


Event = (
    Hello
    | Ready
    | Heard
    | SessionClosed
    | ProbeAnswered
    | DrainRequested
    | PauseRequested
    | TaskReported
    | TaskFailed
    | LeaseEnded
    | ContributionOffered
    | ContributionVerified
    | ContributionRejected
    | ContributionInterrupted
    | VersionGone
    | UpdateApplied
    | UpdateFailed
    | VersionJudged
    | StopRequested
    | CheckpointRequested
    | CheckpointSaved
    | Tick
)
