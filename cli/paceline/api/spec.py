"""Finds out how other processes come to the Job that somebody has in hand: by its file or module, never by a pickle."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from types import ModuleType

from paceline.api.notebook import write_source
from paceline.errors import UsageError
from paceline.job import Job


def spec_of(job: object, folder: Path) -> str:
    """Give the spec of a job, as `paceline run` takes it.

    Args:
        job: a spec; a class derived from Job; or an object of one whose constructor takes nothing.
        folder: where the source of a notebook's class is written.

    Raises:
        UsageError: other processes could not make the same job.
    """
    if isinstance(job, str):
        return job
    job_class = job if isinstance(job, type) else type(job)
    if not issubclass(job_class, Job):
        raise UsageError(f"job is {job!r}: expected a class derived from paceline.Job, or path/file.py:Class")
    name = job_class.__qualname__
    # The adapters' own classes are made with arguments; everybody else's are made by server and workers, with none.
    parameters = [*inspect.signature(job_class).parameters.values()]
    if not isinstance(job, type) and parameters:
        raise UsageError(
            f"job is an object of {name}, made with arguments that other processes do not know: expected a class whose"
            " constructor takes none"
        )
    if "<locals>" in name:
        raise UsageError(f"job {name} is made inside of a function: expected a class on the top level of a file")
    if "." in name:
        raise UsageError(f"job {name} stands inside of another class: expected one on the top level of a file")
    module = sys.modules.get(job_class.__module__)
    if module is None:
        raise UsageError(f"job {name} is of module {job_class.__module__!r}, which is not there: put it into a file")
    return _spec(module, job_class, folder)


def _spec(module: ModuleType, job_class: type[Job], folder: Path) -> str:
    name = job_class.__name__
    path = getattr(module, "__file__", None)
    if module.__name__ == "__main__":
        started = getattr(module, "__spec__", None)
        if started is not None and path is not None:
            return f"{started.name}:{name}"  # python -m package.module
        if path is None or not Path(path).is_file():
            return f"{_written(write_source(job_class, folder))}:{name}"
        return f"{_written(Path(path))}:{name}"
    if path is None:
        raise UsageError(f"job {name} is of module {module.__name__!r}, which has no file: put it into one")
    # A module inside of a package needs it; one that stands alone is found wherever it lies.
    return f"{module.__name__}:{name}" if "." in module.__name__ else f"{_written(Path(path))}:{name}"


def _written(path: Path) -> str:
    """Write a path from here where that is shorter, so that a run's folder can be moved with its job."""
    absolute, here = path.resolve(), Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(absolute)
