"""What `paceline check` finds out about a job: measurements, problems and notes. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING

from paceline.errors import JobImportError, RunFailedError, SettingsError, TaskError, UsageError
from paceline.tracebacks import describe, users_traceback

if TYPE_CHECKING:
    from paceline.cli.commands import RunCommand
    from paceline.job import Job

_MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class Problem:
    """Something for which a run would fail: one line, and the user's traceback where his code raised."""

    message: str
    exit_code: int
    traceback_text: str = ""


class Findings:
    """What is wrong with a job, and what is worth knowing.

    Attributes:
        problems: for which a run would fail.
        notes: for which it would not.
    """

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.notes: list[str] = []

    def step(self, what: str = "") -> Step:
        """Note what a step raises as a problem.

        Args:
            what: of the job's own code; then exit() there is a problem too.
        """
        return Step(self, what)

    def problem(self, message: str, exit_code: int = UsageError.exit_code, traceback_text: str = "") -> None:
        """Note a problem, once."""
        if all(message != problem.message for problem in self.problems):
            self.problems.append(Problem(message, exit_code, traceback_text))


class Step:
    """A step that may fail, to stand in a `with`: what it raises goes into the findings, and one goes on after it."""

    def __init__(self, findings: Findings, what: str) -> None:
        self._findings = findings
        self._what = what

    def __enter__(self) -> None:
        """Begin it."""

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        """Note how it failed; False: with something that is no fault of the job."""
        match error:
            case JobImportError() | TaskError():
                self._findings.problem(str(error), UsageError.exit_code, error.traceback_text)
            case UsageError() | SettingsError():
                self._findings.problem(str(error), error.exit_code)
            case RunFailedError():
                cause = error.__cause__
                self._findings.problem(str(error), UsageError.exit_code, users_traceback(cause) if cause else "")
            case SystemExit() if self._what:
                message = f"{self._what} raised {describe(error)}"
                self._findings.problem(message, UsageError.exit_code, users_traceback(error))
            case _:
                return False
        return True


@dataclass(slots=True, kw_only=True)
class Examined:
    """What was found out; None or empty: it could not be.

    Attributes:
        kind: name of the Job class.
        model, optimizer, scheduler: names of their classes.
        pull_bytes, push_bytes: of a worker in each round; constant_bytes: pulled once, when it joins.
        before_bytes: most memory of the process before anything of the job was built.
        worker_bytes: the same after the tasks; peak_bytes: after update and evaluation. On a CUDA device all three are
            that device's.
        first_s: seconds of the first task; task_s: median of the others; load_s: of them, loading.
        tasks_computed: in all.
        same_bits: whether a task gave the same gradient twice.
        loaders: processes that a worker would start for loading samples.
        state_bytes: of the tensors in the state of optimizer, scheduler and job.
    """

    kind: str = ""
    device: str = "cpu"
    n_samples: int | None = None
    model: str = ""
    parameters: int | None = None
    trained_parameters: int | None = None
    pull_bytes: int | None = None
    push_bytes: int | None = None
    constant_bytes: int | None = None
    before_bytes: int = 0
    worker_bytes: int | None = None
    peak_bytes: int | None = None
    first_s: float | None = None
    task_s: float | None = None
    load_s: float | None = None
    tasks_computed: int = 0
    loss: float | None = None
    same_bits: bool | None = None
    loaders: int | None = None
    optimizer: str = ""
    scheduler: str = ""
    state_bytes: dict[str, int] = field(default_factory=dict)
    update_s: float | None = None
    evaluation_s: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Trial:
    """A job, the settings of the run that it is tried out for, and what is found out meanwhile."""

    settings: RunCommand
    job: Job
    found: Examined
    findings: Findings


def named(names: Sequence[str]) -> str:
    """List names, the first few of many."""
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"{', '.join(names[:_MOST_NAMED])}{more}"
