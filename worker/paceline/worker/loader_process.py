"""What runs in a loader process: opens the job's dataset once more, and loads the tasks that it is asked for.

Nothing of the job travels to it, only where the job lies: it imports the job as its worker did, under the same seed.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from paceline.errors import PacelineError, TaskError
from paceline.loading import build_dataset, build_validation, load_job
from paceline.settings import CACHE_BYTES, SharedSettings
from paceline.streams import ShardCache, use_cache
from paceline.task_loading import TaskBatch, TaskLoader
from paceline.tasks import task_name
from paceline.tracebacks import describe


@dataclass(frozen=True, slots=True)
class LoaderSource:
    """Where samples come from, and under which settings they are loaded.

    Attributes:
        cache: folder for copies of shards, and what they may take in bytes.
    """

    job: str
    data: Path | None
    shared: SharedSettings
    cache: tuple[Path | None, int] = (None, CACHE_BYTES)

    def open(self, heard: Callable[[int], None] | None = None) -> TaskLoader:
        """Import the job and open its data.

        Args:
            heard: called with the bytes of each piece of a shard that has come.

        Raises:
            PacelineError: see loading.
        """
        job = load_job(self.job, self.data)
        shared = self.shared
        dataset = build_dataset(job, shared.seed, shared.micro_batch, shared.partition)
        validation = build_validation(job, shared.seed)
        use_cache(ShardCache(*self.cache, heard), dataset, validation)
        return TaskLoader(job, dataset, shared.seed, shared.micro_batch, shared.partition, validation=validation)


@dataclass(frozen=True, slots=True)
class Request:
    """A task to load, in so many slices."""

    task: int
    micro_steps: int


@dataclass(frozen=True, slots=True)
class Failure:
    """A task that could not be loaded: what a TaskError says."""

    task: int
    message: str
    kind: str
    traceback_text: str = ""

    def error(self) -> TaskError:
        """Make the error again."""
        return TaskError(self.message, self.kind, self.traceback_text)


@dataclass(frozen=True, slots=True)
class NoUse:
    """Nothing can be loaded in this process, whatever the task."""

    reason: str


Loaded = TaskBatch | Failure | NoUse


class Tasks(Dataset[Loaded]):
    """The task stream as a dataset for torch's DataLoader: its indices are requests.

    Args:
        source: opened with the first task, in the loader process.
        pieces: counts the pieces of shards that have come.
    """

    def __init__(self, source: LoaderSource, pieces: Any = None) -> None:
        self._source = source
        self._pieces = pieces
        self._loader: TaskLoader | None = None
        self._sent = False

    def __getitem__(self, request: Request) -> Loaded:
        """Load a task; what goes wrong in it is an answer, so that the process lives."""
        try:
            if self._loader is None:
                self._loader = self._source.open(self._heard)
        except (PacelineError, SystemExit) as error:
            return NoUse(str(error))
        try:
            batch = self._loader.load(request.task, request.micro_steps)
        except TaskError as error:
            return Failure(request.task, str(error), error.kind, error.traceback_text)
        except SystemExit:
            return Failure(request.task, f"{task_name(request.task)}: the job's code called exit()", "exception")
        return self._sendable(batch)

    def _heard(self, nbytes: int) -> None:
        if self._pieces is not None:
            with self._pieces.get_lock():
                self._pieces.value += 1

    def _sendable(self, batch: TaskBatch) -> Loaded:
        """Look whether batches of this job can travel between processes at all; torch would lose them silently."""
        if not self._sent:
            reason = why_not_sendable(batch)
            if reason:
                return NoUse(reason)
            self._sent = True
        return batch


def why_not_sendable(batch: TaskBatch) -> str:
    """Say why a batch cannot travel between processes; empty: it can."""
    try:
        ForkingPickler.dumps(batch)
    except Exception as error:
        return f"its batches cannot be sent between processes: {describe(error)}"
    return ""


class Prepare:
    """Makes a new loader process compute as its worker does, and end when it does.

    Args:
        threads: of torch: other counts may round differently.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def __call__(self, number: int) -> None:
        """Called by torch in the process."""
        torch.set_num_threads(self._threads)
        threading.Thread(target=_end_with_the_worker, name="parent", daemon=True).start()


def _end_with_the_worker() -> None:
    """Wait for the end of the worker. Torch looks at the parent of this process, which is the server of forks."""
    worker = multiprocessing.parent_process()
    if worker is not None:
        worker.join()
        os._exit(1)


def as_it_is(loaded: Any) -> Any:
    """Keep torch from changing what was loaded."""
    return loaded
