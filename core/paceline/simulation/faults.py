"""What can go wrong in a simulated run, as data: whom it strikes and when. Those that really happened are counted."""

from __future__ import annotations

import math
from dataclasses import dataclass

from paceline.coordination.events import Rejection, TaskFailure


@dataclass(frozen=True, slots=True)
class Kill:
    """The process dies at once; with `restart_after_s` a new incarnation of the same name starts that much later."""

    worker: str
    at_s: float
    restart_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Freeze:
    """The process stands still (SIGSTOP): it computes, says and hears nothing, while its connections stay open."""

    worker: str
    from_s: float
    to_s: float


@dataclass(frozen=True, slots=True)
class CutSession:
    """The control connection breaks; what was on its way is lost.

    Attributes:
        resume_after_s: the worker says hello again after this long.
        noticed_after_s: the server hears of the cut after this long, maybe later than of the new session.
    """

    worker: str
    at_s: float
    resume_after_s: float
    noticed_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class CutPush:
    """The nth push of the worker (from 1) breaks off half-way; the worker offers it again."""

    worker: str
    nth: int


@dataclass(frozen=True, slots=True)
class LoseAnswer:
    """The server takes the nth push, but its answer is lost; the worker offers it again."""

    worker: str
    nth: int


@dataclass(frozen=True, slots=True)
class CorruptPush:
    """The nth push is bad: its manifest (WRONG_VERSION, WRONG_TASKS, UNKNOWN_LEASE) or its bytes (all others)."""

    worker: str
    nth: int
    rejection: Rejection


@dataclass(frozen=True, slots=True)
class FailTask:
    """A task fails, the first `times` times that it is tried; `worker` None: on whichever worker.

    `task` None: any task.
    """

    worker: str | None
    task: int | None
    times: int = 1
    failure: TaskFailure = TaskFailure.EXCEPTION


@dataclass(frozen=True, slots=True)
class HangTask:
    """The nth task that the worker starts (from 1) never ends, while its heartbeats go on."""

    worker: str
    nth: int


@dataclass(frozen=True, slots=True)
class Drain:
    """The worker is asked to leave (SIGTERM)."""

    worker: str
    at_s: float


@dataclass(frozen=True, slots=True)
class Pause:
    """Somebody wants the worker's machine for a while."""

    worker: str
    from_s: float
    to_s: float


@dataclass(frozen=True, slots=True)
class SecondProcess:
    """Another process claims the name of a worker."""

    worker: str
    at_s: float


@dataclass(frozen=True, slots=True)
class Stop:
    """Somebody ends the run; the present round may take `grace_s` more to close."""

    at_s: float
    grace_s: float = math.inf


@dataclass(frozen=True, slots=True)
class FailUpdate:
    """The update that would make this version raises."""

    version: int


Fault = (
    Kill
    | Freeze
    | CutSession
    | CutPush
    | LoseAnswer
    | CorruptPush
    | FailTask
    | HangTask
    | Drain
    | Pause
    | SecondProcess
    | Stop
    | FailUpdate
)

MANIFEST_FAULTS = frozenset({Rejection.WRONG_VERSION, Rejection.WRONG_TASKS, Rejection.UNKNOWN_LEASE})
"""Rejections of a manifest, which the coordinator decides; the shell finds the others in the bytes."""
