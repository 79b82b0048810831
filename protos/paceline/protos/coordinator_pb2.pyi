from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TaskOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TASK_OUTCOME_UNSPECIFIED: _ClassVar[TaskOutcome]
    TASK_OUTCOME_DONE: _ClassVar[TaskOutcome]
    TASK_OUTCOME_EXCEPTION: _ClassVar[TaskOutcome]
    TASK_OUTCOME_NON_FINITE: _ClassVar[TaskOutcome]
    TASK_OUTCOME_OUT_OF_MEMORY: _ClassVar[TaskOutcome]
    TASK_OUTCOME_TIME_LIMIT: _ClassVar[TaskOutcome]

class RefusalCode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REFUSAL_CODE_UNSPECIFIED: _ClassVar[RefusalCode]
    REFUSAL_CODE_PROTOCOL: _ClassVar[RefusalCode]
    REFUSAL_CODE_NAME_IN_USE: _ClassVar[RefusalCode]
    REFUSAL_CODE_JOB_DIFFERS: _ClassVar[RefusalCode]
    REFUSAL_CODE_RUN_OVER: _ClassVar[RefusalCode]
    REFUSAL_CODE_SUPERSEDED: _ClassVar[RefusalCode]
    REFUSAL_CODE_LOST: _ClassVar[RefusalCode]
    REFUSAL_CODE_BAD_HELLO: _ClassVar[RefusalCode]
    REFUSAL_CODE_NOT_ALLOWED: _ClassVar[RefusalCode]

class RunOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RUN_OUTCOME_UNSPECIFIED: _ClassVar[RunOutcome]
    RUN_OUTCOME_DONE: _ClassVar[RunOutcome]
    RUN_OUTCOME_FAILED: _ClassVar[RunOutcome]
    RUN_OUTCOME_STOPPED: _ClassVar[RunOutcome]
    RUN_OUTCOME_DRAINED: _ClassVar[RunOutcome]

class Codec(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CODEC_UNSPECIFIED: _ClassVar[Codec]
    CODEC_IDENTITY: _ClassVar[Codec]

class PushVerdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PUSH_VERDICT_UNSPECIFIED: _ClassVar[PushVerdict]
    PUSH_VERDICT_ACCEPTED: _ClassVar[PushVerdict]
    PUSH_VERDICT_REFUSED: _ClassVar[PushVerdict]
TASK_OUTCOME_UNSPECIFIED: TaskOutcome
TASK_OUTCOME_DONE: TaskOutcome
TASK_OUTCOME_EXCEPTION: TaskOutcome
TASK_OUTCOME_NON_FINITE: TaskOutcome
TASK_OUTCOME_OUT_OF_MEMORY: TaskOutcome
TASK_OUTCOME_TIME_LIMIT: TaskOutcome
REFUSAL_CODE_UNSPECIFIED: RefusalCode
REFUSAL_CODE_PROTOCOL: RefusalCode
REFUSAL_CODE_NAME_IN_USE: RefusalCode
REFUSAL_CODE_JOB_DIFFERS: RefusalCode
REFUSAL_CODE_RUN_OVER: RefusalCode
REFUSAL_CODE_SUPERSEDED: RefusalCode
REFUSAL_CODE_LOST: RefusalCode
REFUSAL_CODE_BAD_HELLO: RefusalCode
REFUSAL_CODE_NOT_ALLOWED: RefusalCode
RUN_OUTCOME_UNSPECIFIED: RunOutcome
RUN_OUTCOME_DONE: RunOutcome
RUN_OUTCOME_FAILED: RunOutcome
RUN_OUTCOME_STOPPED: RunOutcome
RUN_OUTCOME_DRAINED: RunOutcome
CODEC_UNSPECIFIED: Codec
CODEC_IDENTITY: Codec
PUSH_VERDICT_UNSPECIFIED: PushVerdict
PUSH_VERDICT_ACCEPTED: PushVerdict
PUSH_VERDICT_REFUSED: PushVerdict

class WorkerMessage(_message.Message):
    __slots__ = ("hello", "ready", "report", "heartbeat", "drain", "lease_ended", "here", "version_gone", "contribution")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    LEASE_ENDED_FIELD_NUMBER: _ClassVar[int]
    HERE_FIELD_NUMBER: _ClassVar[int]
    VERSION_GONE_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    ready: Ready
    report: Report
    heartbeat: Heartbeat
    drain: Drain
    lease_ended: LeaseEnded
    here: Here
    version_gone: VersionGone
    contribution: Contribution
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., ready: _Optional[_Union[Ready, _Mapping]] = ..., report: _Optional[_Union[Report, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., drain: _Optional[_Union[Drain, _Mapping]] = ..., lease_ended: _Optional[_Union[LeaseEnded, _Mapping]] = ..., here: _Optional[_Union[Here, _Mapping]] = ..., version_gone: _Optional[_Union[VersionGone, _Mapping]] = ..., contribution: _Optional[_Union[Contribution, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol_version", "package_version", "name", "incarnation", "host", "pid", "device", "pace", "leases")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    PACKAGE_VERSION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    PACE_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    package_version: str
    name: str
    incarnation: str
    host: str
    pid: int
    device: str
    pace: float
    leases: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, protocol_version: _Optional[int] = ..., package_version: _Optional[str] = ..., name: _Optional[str] = ..., incarnation: _Optional[str] = ..., host: _Optional[str] = ..., pid: _Optional[int] = ..., device: _Optional[str] = ..., pace: _Optional[float] = ..., leases: _Optional[_Iterable[int]] = ...) -> None: ...

class Ready(_message.Message):
    __slots__ = ("job_fingerprint_json",)
    JOB_FINGERPRINT_JSON_FIELD_NUMBER: _ClassVar[int]
    job_fingerprint_json: str
    def __init__(self, job_fingerprint_json: _Optional[str] = ...) -> None: ...

class Report(_message.Message):
    __slots__ = ("lease", "task", "outcome", "seconds", "loss_sum", "samples", "message", "traceback", "contribution", "sums")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    LOSS_SUM_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TRACEBACK_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    SUMS_FIELD_NUMBER: _ClassVar[int]
    lease: int
    task: int
    outcome: TaskOutcome
    seconds: float
    loss_sum: float
    samples: int
    message: str
    traceback: str
    contribution: Contribution
    sums: _containers.RepeatedCompositeFieldContainer[NamedSums]
    def __init__(self, lease: _Optional[int] = ..., task: _Optional[int] = ..., outcome: _Optional[_Union[TaskOutcome, str]] = ..., seconds: _Optional[float] = ..., loss_sum: _Optional[float] = ..., samples: _Optional[int] = ..., message: _Optional[str] = ..., traceback: _Optional[str] = ..., contribution: _Optional[_Union[Contribution, _Mapping]] = ..., sums: _Optional[_Iterable[_Union[NamedSums, _Mapping]]] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("micro_steps",)
    MICRO_STEPS_FIELD_NUMBER: _ClassVar[int]
    micro_steps: int
    def __init__(self, micro_steps: _Optional[int] = ...) -> None: ...

class Drain(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class LeaseEnded(_message.Message):
    __slots__ = ("lease", "wasted_s")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    WASTED_S_FIELD_NUMBER: _ClassVar[int]
    lease: int
    wasted_s: float
    def __init__(self, lease: _Optional[int] = ..., wasted_s: _Optional[float] = ...) -> None: ...

class Here(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class VersionGone(_message.Message):
    __slots__ = ("lease",)
    LEASE_FIELD_NUMBER: _ClassVar[int]
    lease: int
    def __init__(self, lease: _Optional[int] = ...) -> None: ...

class ServerMessage(_message.Message):
    __slots__ = ("welcome", "refused", "lease", "grant", "verdict", "collect", "cancel", "are_you_there", "push_result", "goodbye", "drain", "accepted")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    GRANT_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    COLLECT_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    ARE_YOU_THERE_FIELD_NUMBER: _ClassVar[int]
    PUSH_RESULT_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    refused: Refused
    lease: Lease
    grant: Grant
    verdict: Verdict
    collect: Collect
    cancel: Cancel
    are_you_there: AreYouThere
    push_result: PushResult
    goodbye: Goodbye
    drain: Drain
    accepted: _containers.RepeatedCompositeFieldContainer[PushResult]
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., refused: _Optional[_Union[Refused, _Mapping]] = ..., lease: _Optional[_Union[Lease, _Mapping]] = ..., grant: _Optional[_Union[Grant, _Mapping]] = ..., verdict: _Optional[_Union[Verdict, _Mapping]] = ..., collect: _Optional[_Union[Collect, _Mapping]] = ..., cancel: _Optional[_Union[Cancel, _Mapping]] = ..., are_you_there: _Optional[_Union[AreYouThere, _Mapping]] = ..., push_result: _Optional[_Union[PushResult, _Mapping]] = ..., goodbye: _Optional[_Union[Goodbye, _Mapping]] = ..., drain: _Optional[_Union[Drain, _Mapping]] = ..., accepted: _Optional[_Iterable[_Union[PushResult, _Mapping]]] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("protocol_version", "package_version", "resumed", "job", "settings_json", "job_fingerprint_json", "version_bytes", "constants_bytes", "constants", "constants_crc32c")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    PACKAGE_VERSION_FIELD_NUMBER: _ClassVar[int]
    RESUMED_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_JSON_FIELD_NUMBER: _ClassVar[int]
    JOB_FINGERPRINT_JSON_FIELD_NUMBER: _ClassVar[int]
    VERSION_BYTES_FIELD_NUMBER: _ClassVar[int]
    CONSTANTS_BYTES_FIELD_NUMBER: _ClassVar[int]
    CONSTANTS_FIELD_NUMBER: _ClassVar[int]
    CONSTANTS_CRC32C_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    package_version: str
    resumed: bool
    job: str
    settings_json: str
    job_fingerprint_json: str
    version_bytes: int
    constants_bytes: int
    constants: bytes
    constants_crc32c: int
    def __init__(self, protocol_version: _Optional[int] = ..., package_version: _Optional[str] = ..., resumed: _Optional[bool] = ..., job: _Optional[str] = ..., settings_json: _Optional[str] = ..., job_fingerprint_json: _Optional[str] = ..., version_bytes: _Optional[int] = ..., constants_bytes: _Optional[int] = ..., constants: _Optional[bytes] = ..., constants_crc32c: _Optional[int] = ...) -> None: ...

class Refused(_message.Message):
    __slots__ = ("code", "reason")
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    code: RefusalCode
    reason: str
    def __init__(self, code: _Optional[_Union[RefusalCode, str]] = ..., reason: _Optional[str] = ...) -> None: ...

class TaskRange(_message.Message):
    __slots__ = ("first", "count")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    first: int
    count: int
    def __init__(self, first: _Optional[int] = ..., count: _Optional[int] = ...) -> None: ...

class Lease(_message.Message):
    __slots__ = ("lease", "version", "tasks", "keep_in_advance", "push_unasked", "task_limit_s", "state", "state_crc32c", "loss_scale")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    KEEP_IN_ADVANCE_FIELD_NUMBER: _ClassVar[int]
    PUSH_UNASKED_FIELD_NUMBER: _ClassVar[int]
    TASK_LIMIT_S_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    STATE_CRC32C_FIELD_NUMBER: _ClassVar[int]
    LOSS_SCALE_FIELD_NUMBER: _ClassVar[int]
    lease: int
    version: int
    tasks: _containers.RepeatedCompositeFieldContainer[TaskRange]
    keep_in_advance: bool
    push_unasked: bool
    task_limit_s: float
    state: bytes
    state_crc32c: int
    loss_scale: float
    def __init__(self, lease: _Optional[int] = ..., version: _Optional[int] = ..., tasks: _Optional[_Iterable[_Union[TaskRange, _Mapping]]] = ..., keep_in_advance: _Optional[bool] = ..., push_unasked: _Optional[bool] = ..., task_limit_s: _Optional[float] = ..., state: _Optional[bytes] = ..., state_crc32c: _Optional[int] = ..., loss_scale: _Optional[float] = ...) -> None: ...

class Grant(_message.Message):
    __slots__ = ("lease", "tasks")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    lease: int
    tasks: _containers.RepeatedCompositeFieldContainer[TaskRange]
    def __init__(self, lease: _Optional[int] = ..., tasks: _Optional[_Iterable[_Union[TaskRange, _Mapping]]] = ...) -> None: ...

class Verdict(_message.Message):
    __slots__ = ("lease", "task", "keep")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIELD_NUMBER: _ClassVar[int]
    lease: int
    task: int
    keep: bool
    def __init__(self, lease: _Optional[int] = ..., task: _Optional[int] = ..., keep: _Optional[bool] = ...) -> None: ...

class Collect(_message.Message):
    __slots__ = ("lease", "kept")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    lease: int
    kept: _containers.RepeatedCompositeFieldContainer[TaskRange]
    def __init__(self, lease: _Optional[int] = ..., kept: _Optional[_Iterable[_Union[TaskRange, _Mapping]]] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ("lease",)
    LEASE_FIELD_NUMBER: _ClassVar[int]
    lease: int
    def __init__(self, lease: _Optional[int] = ...) -> None: ...

class AreYouThere(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Goodbye(_message.Message):
    __slots__ = ("outcome", "reason")
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    outcome: RunOutcome
    reason: str
    def __init__(self, outcome: _Optional[_Union[RunOutcome, str]] = ..., reason: _Optional[str] = ...) -> None: ...

class SegmentInfo(_message.Message):
    __slots__ = ("name", "dtype", "bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    dtype: str
    bytes: int
    def __init__(self, name: _Optional[str] = ..., dtype: _Optional[str] = ..., bytes: _Optional[int] = ...) -> None: ...

class Manifest(_message.Message):
    __slots__ = ("lease", "incarnation", "version", "tasks", "seconds", "loss_sums", "samples", "wasted_s", "codec", "total_bytes", "segments", "data_s", "sums", "micro_steps")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    LOSS_SUMS_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    WASTED_S_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    DATA_S_FIELD_NUMBER: _ClassVar[int]
    SUMS_FIELD_NUMBER: _ClassVar[int]
    MICRO_STEPS_FIELD_NUMBER: _ClassVar[int]
    lease: int
    incarnation: str
    version: int
    tasks: _containers.RepeatedScalarFieldContainer[int]
    seconds: _containers.RepeatedScalarFieldContainer[float]
    loss_sums: _containers.RepeatedScalarFieldContainer[float]
    samples: _containers.RepeatedScalarFieldContainer[int]
    wasted_s: float
    codec: Codec
    total_bytes: int
    segments: _containers.RepeatedCompositeFieldContainer[SegmentInfo]
    data_s: _containers.RepeatedScalarFieldContainer[float]
    sums: _containers.RepeatedCompositeFieldContainer[NamedSums]
    micro_steps: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, lease: _Optional[int] = ..., incarnation: _Optional[str] = ..., version: _Optional[int] = ..., tasks: _Optional[_Iterable[int]] = ..., seconds: _Optional[_Iterable[float]] = ..., loss_sums: _Optional[_Iterable[float]] = ..., samples: _Optional[_Iterable[int]] = ..., wasted_s: _Optional[float] = ..., codec: _Optional[_Union[Codec, str]] = ..., total_bytes: _Optional[int] = ..., segments: _Optional[_Iterable[_Union[SegmentInfo, _Mapping]]] = ..., data_s: _Optional[_Iterable[float]] = ..., sums: _Optional[_Iterable[_Union[NamedSums, _Mapping]]] = ..., micro_steps: _Optional[_Iterable[int]] = ...) -> None: ...

class NamedSums(_message.Message):
    __slots__ = ("name", "sums")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SUMS_FIELD_NUMBER: _ClassVar[int]
    name: str
    sums: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, name: _Optional[str] = ..., sums: _Optional[_Iterable[float]] = ...) -> None: ...

class Contribution(_message.Message):
    __slots__ = ("manifest", "payload", "payload_crc32c")
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_CRC32C_FIELD_NUMBER: _ClassVar[int]
    manifest: Manifest
    payload: bytes
    payload_crc32c: int
    def __init__(self, manifest: _Optional[_Union[Manifest, _Mapping]] = ..., payload: _Optional[bytes] = ..., payload_crc32c: _Optional[int] = ...) -> None: ...

class PushResult(_message.Message):
    __slots__ = ("lease", "verdict", "rejection", "message")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    REJECTION_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    lease: int
    verdict: PushVerdict
    rejection: str
    message: str
    def __init__(self, lease: _Optional[int] = ..., verdict: _Optional[_Union[PushVerdict, str]] = ..., rejection: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class TransferUp(_message.Message):
    __slots__ = ("chunk", "chunk_crc32c", "attach", "pull", "push", "push_done")
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    CHUNK_CRC32C_FIELD_NUMBER: _ClassVar[int]
    ATTACH_FIELD_NUMBER: _ClassVar[int]
    PULL_FIELD_NUMBER: _ClassVar[int]
    PUSH_FIELD_NUMBER: _ClassVar[int]
    PUSH_DONE_FIELD_NUMBER: _ClassVar[int]
    chunk: bytes
    chunk_crc32c: int
    attach: Attach
    pull: PullRequest
    push: Manifest
    push_done: PushDone
    def __init__(self, chunk: _Optional[bytes] = ..., chunk_crc32c: _Optional[int] = ..., attach: _Optional[_Union[Attach, _Mapping]] = ..., pull: _Optional[_Union[PullRequest, _Mapping]] = ..., push: _Optional[_Union[Manifest, _Mapping]] = ..., push_done: _Optional[_Union[PushDone, _Mapping]] = ...) -> None: ...

class TransferDown(_message.Message):
    __slots__ = ("chunk", "chunk_crc32c", "pull_begin", "push_granted", "push_result", "pull_gone")
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    CHUNK_CRC32C_FIELD_NUMBER: _ClassVar[int]
    PULL_BEGIN_FIELD_NUMBER: _ClassVar[int]
    PUSH_GRANTED_FIELD_NUMBER: _ClassVar[int]
    PUSH_RESULT_FIELD_NUMBER: _ClassVar[int]
    PULL_GONE_FIELD_NUMBER: _ClassVar[int]
    chunk: bytes
    chunk_crc32c: int
    pull_begin: PullBegin
    push_granted: PushGranted
    push_result: PushResult
    pull_gone: PullGone
    def __init__(self, chunk: _Optional[bytes] = ..., chunk_crc32c: _Optional[int] = ..., pull_begin: _Optional[_Union[PullBegin, _Mapping]] = ..., push_granted: _Optional[_Union[PushGranted, _Mapping]] = ..., push_result: _Optional[_Union[PushResult, _Mapping]] = ..., pull_gone: _Optional[_Union[PullGone, _Mapping]] = ...) -> None: ...

class Attach(_message.Message):
    __slots__ = ("protocol_version", "incarnation")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    incarnation: str
    def __init__(self, protocol_version: _Optional[int] = ..., incarnation: _Optional[str] = ...) -> None: ...

class PullRequest(_message.Message):
    __slots__ = ("version", "constants")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CONSTANTS_FIELD_NUMBER: _ClassVar[int]
    version: int
    constants: bool
    def __init__(self, version: _Optional[int] = ..., constants: _Optional[bool] = ...) -> None: ...

class PullBegin(_message.Message):
    __slots__ = ("version", "constants", "total_bytes")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CONSTANTS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    version: int
    constants: bool
    total_bytes: int
    def __init__(self, version: _Optional[int] = ..., constants: _Optional[bool] = ..., total_bytes: _Optional[int] = ...) -> None: ...

class PullGone(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: int
    def __init__(self, version: _Optional[int] = ...) -> None: ...

class PushGranted(_message.Message):
    __slots__ = ("lease",)
    LEASE_FIELD_NUMBER: _ClassVar[int]
    lease: int
    def __init__(self, lease: _Optional[int] = ...) -> None: ...

class PushDone(_message.Message):
    __slots__ = ("lease",)
    LEASE_FIELD_NUMBER: _ClassVar[int]
    lease: int
    def __init__(self, lease: _Optional[int] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StopRequest(_message.Message):
    __slots__ = ("grace_s",)
    GRACE_S_FIELD_NUMBER: _ClassVar[int]
    grace_s: float
    def __init__(self, grace_s: _Optional[float] = ...) -> None: ...

class StopResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DrainResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PauseRequest(_message.Message):
    __slots__ = ("name", "paused")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    name: str
    paused: bool
    def __init__(self, name: _Optional[str] = ..., paused: _Optional[bool] = ...) -> None: ...

class PauseResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CheckpointRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CheckpointResponse(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: int
    def __init__(self, version: _Optional[int] = ...) -> None: ...

class StatusResponse(_message.Message):
    __slots__ = ("job", "policy", "state", "situation", "round", "rounds", "version", "loss", "elapsed_s", "last_round_s", "decision", "workers", "metrics", "run_dir", "tasks_used", "tasks_wasted", "worker_s", "wasted_worker_s", "seed", "package_version", "tasks_per_round", "checkpoint", "checkpoint_age_s", "means", "micro_batch", "cost")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class MeansEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    JOB_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SITUATION_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_S_FIELD_NUMBER: _ClassVar[int]
    LAST_ROUND_S_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    RUN_DIR_FIELD_NUMBER: _ClassVar[int]
    TASKS_USED_FIELD_NUMBER: _ClassVar[int]
    TASKS_WASTED_FIELD_NUMBER: _ClassVar[int]
    WORKER_S_FIELD_NUMBER: _ClassVar[int]
    WASTED_WORKER_S_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    PACKAGE_VERSION_FIELD_NUMBER: _ClassVar[int]
    TASKS_PER_ROUND_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_AGE_S_FIELD_NUMBER: _ClassVar[int]
    MEANS_FIELD_NUMBER: _ClassVar[int]
    MICRO_BATCH_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    job: str
    policy: str
    state: str
    situation: str
    round: int
    rounds: int
    version: int
    loss: float
    elapsed_s: float
    last_round_s: float
    decision: str
    workers: _containers.RepeatedCompositeFieldContainer[WorkerStatus]
    metrics: _containers.ScalarMap[str, float]
    run_dir: str
    tasks_used: int
    tasks_wasted: int
    worker_s: float
    wasted_worker_s: float
    seed: str
    package_version: str
    tasks_per_round: int
    checkpoint: int
    checkpoint_age_s: float
    means: _containers.ScalarMap[str, float]
    micro_batch: int
    cost: float
    def __init__(self, job: _Optional[str] = ..., policy: _Optional[str] = ..., state: _Optional[str] = ..., situation: _Optional[str] = ..., round: _Optional[int] = ..., rounds: _Optional[int] = ..., version: _Optional[int] = ..., loss: _Optional[float] = ..., elapsed_s: _Optional[float] = ..., last_round_s: _Optional[float] = ..., decision: _Optional[str] = ..., workers: _Optional[_Iterable[_Union[WorkerStatus, _Mapping]]] = ..., metrics: _Optional[_Mapping[str, float]] = ..., run_dir: _Optional[str] = ..., tasks_used: _Optional[int] = ..., tasks_wasted: _Optional[int] = ..., worker_s: _Optional[float] = ..., wasted_worker_s: _Optional[float] = ..., seed: _Optional[str] = ..., package_version: _Optional[str] = ..., tasks_per_round: _Optional[int] = ..., checkpoint: _Optional[int] = ..., checkpoint_age_s: _Optional[float] = ..., means: _Optional[_Mapping[str, float]] = ..., micro_batch: _Optional[int] = ..., cost: _Optional[float] = ...) -> None: ...

class WorkerStatus(_message.Message):
    __slots__ = ("name", "state", "device", "address", "tasks_done", "mean_task_s", "radius_s", "allocation", "pace", "busy_s", "note", "data_share")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    TASKS_DONE_FIELD_NUMBER: _ClassVar[int]
    MEAN_TASK_S_FIELD_NUMBER: _ClassVar[int]
    RADIUS_S_FIELD_NUMBER: _ClassVar[int]
    ALLOCATION_FIELD_NUMBER: _ClassVar[int]
    PACE_FIELD_NUMBER: _ClassVar[int]
    BUSY_S_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    DATA_SHARE_FIELD_NUMBER: _ClassVar[int]
    name: str
    state: str
    device: str
    address: str
    tasks_done: int
    mean_task_s: float
    radius_s: float
    allocation: int
    pace: float
    busy_s: float
    note: str
    data_share: float
    def __init__(self, name: _Optional[str] = ..., state: _Optional[str] = ..., device: _Optional[str] = ..., address: _Optional[str] = ..., tasks_done: _Optional[int] = ..., mean_task_s: _Optional[float] = ..., radius_s: _Optional[float] = ..., allocation: _Optional[int] = ..., pace: _Optional[float] = ..., busy_s: _Optional[float] = ..., note: _Optional[str] = ..., data_share: _Optional[float] = ...) -> None: ...
