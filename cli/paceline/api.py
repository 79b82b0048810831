"""Training from Python: `train` runs a job with local workers, `load` gives the model of a run, `export` keeps it.

    from paceline.api import train

    if __name__ == "__main__":
        result = train("my_job.py:MyJob", workers=4, rounds=200, seed=1)
        print(result.metrics, result.history["loss"][-1])

`paceline` itself is a namespace package, which can hold no functions: see ADR-0009.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import ValidationError
from rich.console import Console

from paceline.callbacks import Callback, EndEvent, EvaluationEvent, History, RoundEvent, RunInfo, WorkerEvent
from paceline.cli.commands import RunCommand
from paceline.cli.local_run import run_locally
from paceline.cli.messages import explain
from paceline.cli.progress import Quiet, make_progress
from paceline.cli.run_models import export, load
from paceline.errors import RunFailedError, UsageError
from paceline.job import Job
from paceline.nearest import did_you_mean

if TYPE_CHECKING:
    import pandas

__all__ = [
    "Callback",
    "EndEvent",
    "EvaluationEvent",
    "Job",
    "Result",
    "RoundEvent",
    "RunInfo",
    "WorkerEvent",
    "export",
    "load",
    "train",
]


@dataclass(frozen=True, slots=True)
class Result:
    """A run that has ended.

    Attributes:
        outcome: done, or stopped (by Ctrl-C).
        history: columns of equal length, a value for each round of this call: round, loss, seconds, elapsed_s, samples,
            tasks, worker_s, wasted_s.
        evaluations: columns likewise: round, elapsed_s and each metric, a value for each measured version.
        metrics: of the last evaluation.
        summary: the document of `paceline run --json`.
    """

    outcome: str
    reason: str
    run_dir: Path
    history: Mapping[str, Sequence[float]]
    evaluations: Mapping[str, Sequence[float]]
    metrics: Mapping[str, float | None]
    summary: Mapping[str, Any]

    def model(self) -> torch.nn.Module:
        """Give the trained module; see `load`."""
        return load(self.run_dir)

    def to_pandas(self) -> pandas.DataFrame:
        """Give `history` as a table, a row for each round.

        Raises:
            UsageError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise UsageError("to_pandas() needs pandas: pip install pandas") from None
        return pandas.DataFrame(self.history)


def train(
    job: str | type[Job],
    *,
    workers: int = 2,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
    **settings: Any,
) -> Result:
    """Train a job with a server and local workers in processes of their own, to its end.

    Args:
        job: `path/file.py:Class`, `pkg.mod:Class`, or the class itself if it stands in a file. A script that calls this
            and holds its job needs `if __name__ == "__main__":`, since the processes import it.
        workers: how many.
        callbacks: called in a thread of this process.
        progress: show how it goes, on standard error.
        settings: what `paceline run` takes, by names with underscores: rounds=200, micro_batch=32, policy="uniform",
            data="pictures", resume="runs/a", checkpoint_every="20".

    Returns:
        How it went. Ctrl-C gives a result too, with outcome "stopped", which `resume` goes on from.

    Raises:
        UsageError: a setting, the job or a callback is wrong; nothing was started.
        RunFailedError: the run failed; what it had is saved.
        PacelineError: it could not start, or broke down.
    """
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise UsageError(f"callback {callback!r} is no Callback: expected objects of a subclass of it")
    command = _command({"job": spec_of(job), "workers": workers, **settings})
    history = History()
    shown = make_progress(Console(stderr=True)) if progress else Quiet()
    end = run_locally(command, shown, [history, *callbacks])
    if end.outcome == "failed":
        raise RunFailedError(f"{end.reason} (run directory {end.run_dir})")
    return Result(
        outcome=end.outcome,
        reason=end.reason,
        run_dir=end.run_dir,
        history=history.rounds,
        evaluations=history.evaluations,
        metrics=end.summary["metrics"],
        summary=end.summary,
    )


def spec_of(job: str | type[Job]) -> str:
    """Say where a job stands, as other processes can import it.

    Raises:
        UsageError: it is no class of a job, or it stands in no file, or not at the file's top level.
    """
    if isinstance(job, str):
        return job
    given: Any = job
    if not (inspect.isclass(given) and issubclass(given, Job)):
        raise UsageError(f"job is {job!r}: expected a subclass of Job, or path/file.py:Class")
    if "." in job.__qualname__:
        raise UsageError(f"job {job.__qualname__} stands inside of something: expected a class at a file's top level")
    module = sys.modules.get(job.__module__)
    file = getattr(module, "__file__", None)
    if file is None:
        raise UsageError(
            f"job {job.__name__} stands in no file: put it into one (in a notebook: %%writefile my_job.py), "
            f"and give 'my_job.py:{job.__name__}'"
        )
    if "." in job.__module__:
        return f"{job.__module__}:{job.__name__}"
    return f"{Path(file).resolve()}:{job.__name__}"


def _command(settings: Mapping[str, Any]) -> RunCommand:
    offered = [name for name in RunCommand.model_fields if name not in RunCommand.not_offered]
    for name in settings:
        if name not in offered:
            raise UsageError(f"setting {name!r} is unknown{did_you_mean(name, offered)}")
    try:
        return RunCommand.model_validate(dict(settings))
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(explain(RunCommand, first, str(first["loc"][0]) if first["loc"] else "")) from None
