"""The error tree of paceline. Each leaf says whose fault it is and what a process should exit with.

    PacelineError                 exit 70: a bug unless a subclass says otherwise
    |-- UsageError                exit 2   the caller's mistake: a flag, a file, a job
    |   `-- JobImportError        exit 2   the job's own file raised; carries its traceback
    |-- SettingsError             exit 78  settings that contradict each other or the machine
    |-- RefusedError              exit 77  the server refused this worker; it would refuse it again
    |-- NothingToResume           exit 0   the run to go on with is done
    |-- UnavailableError          exit 69  the server cannot be reached
    |-- TryAgainError             exit 75  passing trouble; a supervisor may start us again
    |-- RunFailedError            exit 1   the run ended as failed; what it had is saved
    |-- CheckpointError           exit 74  a checkpoint cannot be written or read back
    |-- TaskError                 --       one task failed in a worker; the server decides what follows
    `-- ProtocolError             --       a peer broke the protocol; that peer is answered, we go on

Messages are one line: the thing, its value, and what was expected.
"""

from __future__ import annotations


class PacelineError(Exception):
    """Base of all errors raised on purpose."""

    exit_code = 70


class UsageError(PacelineError):
    """The caller asked for something that cannot be; nothing was started."""

    exit_code = 2


class JobImportError(UsageError):
    """The job's own code raised while it was imported or built.

    Args:
        message: one line.
        traceback_text: the traceback reduced to the user's own frames.
    """

    def __init__(self, message: str, traceback_text: str) -> None:
        super().__init__(message)
        self.traceback_text = traceback_text


class SettingsError(PacelineError):
    """Settings that contradict each other or what the machine can do."""

    exit_code = 78


class RefusedError(PacelineError):
    """The server refused this worker for a reason that will not go away by itself."""

    exit_code = 77


class NothingToResume(PacelineError):  # noqa: N818  # it ends a command, and is no error
    """The run to go on with is done."""

    exit_code = 0


class UnavailableError(PacelineError):
    """The server cannot be reached."""

    exit_code = 69


class TryAgainError(PacelineError):
    """Passing trouble: the same command may succeed later."""

    exit_code = 75


class RunFailedError(PacelineError):
    """The run ended as failed; its state was saved."""

    exit_code = 1


class CheckpointError(PacelineError):
    """A checkpoint that cannot be written, or that is not what was written. A server that trains goes on."""

    exit_code = 74


class TaskError(PacelineError):
    """One task failed in a worker.

    Args:
        message: one line saying what failed.
        kind: "exception", "non-finite" or "out-of-memory".
        traceback_text: the worker's traceback, empty where there is none.
    """

    def __init__(self, message: str, kind: str = "exception", traceback_text: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.traceback_text = traceback_text


class ProtocolError(PacelineError):
    """A peer sent what the protocol does not allow."""
