"""Loads one task's samples: which they are, under which random numbers, collated into one batch per micro-step."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import TensorDataset
from torch.utils.data._utils.pin_memory import pin_memory

from paceline.errors import TaskError
from paceline.job import Batch, Job, SampleSource, overrides
from paceline.seeding import seed_everything
from paceline.tasks import is_validation, task_name, task_samples, task_seed, validation_samples
from paceline.tracebacks import describe, users_traceback


@dataclass(frozen=True, slots=True)
class TaskBatch:
    """A loaded task: a batch for each micro-step, and the samples in each."""

    task: int
    parts: tuple[Batch, ...]
    sizes: tuple[int, ...]

    def pin_memory(self) -> TaskBatch:
        """Move its tensors to where a CUDA device fetches them by itself; torch's DataLoader calls it."""
        return dataclasses.replace(self, parts=tuple(pin_memory(part) for part in self.parts))  # type: ignore[no-untyped-call]  # torch's own


class TaskLoader:
    """Loads tasks into this process's memory, on the CPU.

    Args:
        job: the user's job.
        dataset: its samples, at least micro_batch.
        seed: the run's.
        micro_batch: samples per task.
        partition: parts of the data, see tasks.task_samples.
        validation: samples of the validation tasks; None: there are none.
    """

    def __init__(
        self,
        job: Job,
        dataset: SampleSource,
        seed: int,
        micro_batch: int,
        partition: int = 0,
        *,
        validation: SampleSource | None = None,
    ) -> None:
        self._training = _Collator(job, dataset)
        self._validation = None if validation is None else _Collator(job, validation)
        self._seed = seed
        self._micro_batch = micro_batch
        self._partition = partition

    def load(self, task: int, micro_steps: int = 1) -> TaskBatch:
        """Load a task's samples in so many slices.

        Raises:
            TaskError: the dataset or the job's collate raised, or memory ran out.
        """
        seed_everything(task_seed(self._seed, task, "loading"))
        with failures(task, "loading"):
            source, indices = self._samples(task)
            steps = min(micro_steps, len(indices))
            slices = [indices] if steps == 1 else np.array_split(indices, steps)
            return TaskBatch(task, tuple(source.batches(slices)), tuple(len(part) for part in slices))

    def _samples(self, task: int) -> tuple[_Collator, NDArray[np.int64]]:
        if not is_validation(task):
            n_samples = self._training.n_samples
            return self._training, task_samples(self._seed, task, self._micro_batch, n_samples, self._partition)
        if self._validation is None:
            raise ValueError("the job has no validation()")
        return self._validation, validation_samples(task, self._micro_batch, self._validation.n_samples)


class _Collator:
    """Makes batches of a dataset's samples as the job says."""

    def __init__(self, job: Job, dataset: SampleSource) -> None:
        self._job = job
        self._dataset = dataset
        self.n_samples = len(dataset)
        # Indexing its tensors gives the batch that collating its samples one by one would, at a tenth of the time.
        self._tensors = dataset.tensors if type(dataset) is TensorDataset and not overrides(job, "collate") else None

    def batches(self, slices: list[NDArray[np.int64]]) -> Iterator[Batch]:
        if self._tensors is not None:
            for part in slices:
                index = torch.from_numpy(part.copy())
                yield [tensor.index_select(0, index) for tensor in self._tensors]
            return
        fetch = getattr(self._dataset, "__getitems__", None)
        for part in slices:
            indices = part.tolist()
            yield self._job.collate(fetch(indices) if fetch else [self._dataset[index] for index in indices])


def on_device(batch: TaskBatch, device: torch.device) -> TaskBatch:
    """Move a loaded task to a device."""
    return dataclasses.replace(batch, parts=tuple(to_device(part, device) for part in batch.parts))


def to_device(batch: Any, device: torch.device) -> Any:
    """Move all tensors of a batch, in tuples, lists, dicts and dataclasses too, to a device; leave the rest as it is.

    Pinned ones are copied while the device computes.
    """
    if device.type == "cpu":
        return batch
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=batch.is_pinned())
    if isinstance(batch, dict):
        return {key: to_device(value, device) for key, value in batch.items()}
    if hasattr(batch, "to"):
        return batch.to(device)
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        moved = copy.copy(batch)
        for field in dataclasses.fields(batch):
            object.__setattr__(moved, field.name, to_device(getattr(batch, field.name), device))
        return moved
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(to_device(value, device) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(to_device(value, device) for value in batch)
    return batch


@contextlib.contextmanager
def failures(task: int, doing: str) -> Iterator[None]:
    """Turn what the job's code raises into a TaskError that names the task."""
    try:
        yield
    except Exception as error:
        kind = "out-of-memory" if _is_out_of_memory(error) else "exception"
        message = f"{task_name(task)}: {doing} it raised {describe(error)}"
        raise TaskError(message, kind, users_traceback(error)) from error


def _is_out_of_memory(error: Exception) -> bool:
    # torch's CPU allocator raises a plain RuntimeError.
    return isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or "can't allocate memory" in str(error)
