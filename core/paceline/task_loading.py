"""Loads one task's samples: which they are, under which random numbers, collated into one batch per micro-step."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterator
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
from paceline.streams import Shards
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
        self._dataset = dataset
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
            if isinstance(self._dataset, Shards) and not is_validation(task):
                self._dataset.begin_next(self._seed, task, self._micro_batch)
            steps = min(micro_steps, len(indices))
            slices = [indices] if steps == 1 else np.array_split(indices, steps)
            return TaskBatch(task, tuple(source.batches(slices)), tuple(len(part) for part in slices))

    def _samples(self, task: int) -> tuple[_Collator, NDArray[np.int64]]:
        if not is_validation(task):
            return self._training, samples_of(self._dataset, self._seed, task, self._micro_batch, self._partition)
        if self._validation is None:
            raise ValueError("the job has no validation()")
        return self._validation, validation_samples(task, self._micro_batch, self._validation.n_samples)


def samples_of(dataset: SampleSource, seed: int, task: int, micro_batch: int, partition: int = 0) -> NDArray[np.int64]:
    """Give the indices of a task's samples: in the order of the shards, where the dataset lies in such."""
    if isinstance(dataset, Shards):
        return dataset.task_samples(seed, task, micro_batch)
    return task_samples(seed, task, micro_batch, len(dataset), partition)


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

    def move(value: Any) -> Any:
        return value.to(device, non_blocking=isinstance(value, torch.Tensor) and value.is_pinned())

    return _with_leaves(batch, move)


def channels_last(batch: TaskBatch) -> TaskBatch:
    """Lay the pictures of a batch, float tensors of four dimensions, out as convolutions like them."""

    def lay_out(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.dim() == 4 and value.is_floating_point():
            return value.contiguous(memory_format=torch.channels_last)
        return value

    return dataclasses.replace(batch, parts=tuple(_with_leaves(part, lay_out) for part in batch.parts))


def _with_leaves(batch: Any, change: Callable[[Any], Any]) -> Any:
    """Change the tensors of a batch, and what else has `to`, in dicts, dataclasses, tuples and lists."""
    if isinstance(batch, dict):
        return {key: _with_leaves(value, change) for key, value in batch.items()}
    if hasattr(batch, "to"):
        return change(batch)
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        changed = copy.copy(batch)
        for field in dataclasses.fields(batch):
            object.__setattr__(changed, field.name, _with_leaves(getattr(batch, field.name), change))
        return changed
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_with_leaves(value, change) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(_with_leaves(value, change) for value in batch)
    return batch


@contextlib.contextmanager
def failures(task: int, doing: str) -> Iterator[None]:
    """Turn what the job's code raises into a TaskError that names the task."""
    try:
        yield
    except Exception as error:
        kind = "out-of-memory" if is_out_of_memory(error) else "exception"
        message = f"{task_name(task)}: {doing} it raised {describe(error)}"
        raise TaskError(message, kind, users_traceback(error)) from error


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether memory ran out, of the machine or of a device."""
    # torch's CPU allocator raises a plain RuntimeError.
    return isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or "can't allocate memory" in str(error)
