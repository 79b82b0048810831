"""The task stream: which samples and which random numbers a task id stands for. Pure; no torch.

Position p of the sample stream is sample ``perm_e[p mod N]`` with ``e = p div N``, where perm_e is the seed's
permutation of epoch e. Task t holds positions [t m, (t + 1) m). So every sample comes once per epoch, no task is short,
and a task may straddle two epochs.

The ids from VALIDATION on stand for the validation data, cut into pieces in their order: the model is measured on them.

All chance comes from ``RandomState`` and from BLAKE2 digests: NEP 19 freezes the streams of RandomState for good, while
those of ``Generator`` may change with a numpy release. Two machines with different numpy versions must agree on a task.
"""

from __future__ import annotations

import functools
import hashlib
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Phase = Literal["loading", "computing"]

VALIDATION = 1 << 62
"""The first id of a validation task; no task stream gets that far."""


def task_samples(seed: int, task: int, micro_batch: int, n_samples: int, parts: int = 0) -> NDArray[np.int64]:
    """Give the sample indices of a task, in order.

    With parts, the dataset is cut into so many runs of neighbouring samples, equally long but for one; task t is the
    (t div parts)th of part t mod parts, whose own stream is made like that of a whole dataset.

    Args:
        seed: the run's seed.
        task: task id, >= 0.
        micro_batch: samples per task, at most n_samples.
        n_samples: length of the dataset.
        parts: 0: the data are not cut.

    Returns:
        Shape (micro_batch,), int64, each in [0, n_samples). May be a read-only view of a cached permutation.

    Raises:
        ValueError: if task is negative or micro_batch is not in [1, n_samples] (or the samples of a part).

    Complexity: microseconds; the first task of an epoch pays for its permutation, O(n_samples).
    """
    if parts:
        index, part = divmod(task, parts)
        first, end = part * n_samples // parts, (part + 1) * n_samples // parts
        return first + task_samples(_part_seed(seed, part), index, micro_batch, end - first)
    if task < 0 or not 1 <= micro_batch <= n_samples:
        raise ValueError(f"task {task} with micro_batch {micro_batch} of {n_samples} samples: no such task")
    epoch, start = divmod(task * micro_batch, n_samples)
    head = epoch_order(seed, epoch, n_samples)[start : start + micro_batch]
    missing = micro_batch - len(head)
    if not missing:
        return head
    return np.concatenate([head, epoch_order(seed, epoch + 1, n_samples)[:missing]])


def is_validation(task: int) -> bool:
    """Tell whether a task measures the model."""
    return task >= VALIDATION


def task_name(task: int) -> str:
    """Name a task as people know it."""
    return f"validation task {task - VALIDATION}" if is_validation(task) else f"task {task}"


def validation_tasks(micro_batch: int, n_samples: int) -> int:
    """Give the number of validation tasks; only the last may be short."""
    return -(-n_samples // micro_batch)


def validation_samples(task: int, micro_batch: int, n_samples: int) -> NDArray[np.int64]:
    """Give the sample indices of a validation task, in order; shape (micro_batch,), or fewer for the last.

    Raises:
        ValueError: there is no such task.
    """
    first = (task - VALIDATION) * micro_batch
    if not 0 <= first < n_samples:
        raise ValueError(f"{task_name(task)} with micro_batch {micro_batch} of {n_samples} samples: no such task")
    return np.arange(first, min(first + micro_batch, n_samples), dtype=np.int64)


def task_seed(seed: int, task: int, phase: Phase) -> int:
    """Give the seed of a task's random numbers while its samples are loaded, or while it is computed.

    Returns:
        An int in [0, 2^63), so that it fits every generator's seed.
    """
    return int.from_bytes(_digest(f"task/{seed}/{task}/{phase}", 8), "little") >> 1


def update_seed(seed: int, update: int) -> int:
    """Give the seed of the random numbers that the job draws while the model is updated; in [0, 2^63)."""
    return int.from_bytes(_digest(f"update/{seed}/{update}", 8), "little") >> 1


def _part_seed(seed: int, part: int) -> int:
    return int.from_bytes(_digest(f"part/{seed}/{part}", 8), "little") >> 1


# Two epochs are in use while tasks straddle their border; two more serve a server beside its workers in one process.
@functools.lru_cache(maxsize=4)
def epoch_order(seed: int, epoch: int, n_samples: int) -> NDArray[np.int64]:
    """Give the seed's permutation of the samples for one epoch; shape (n_samples,), read-only."""
    order = shuffled(f"epoch/{seed}/{epoch}", n_samples)
    order.flags.writeable = False
    return order


def shuffled(name: str, length: int) -> NDArray[np.int64]:
    """Give the permutation of 0 to length - 1 that a name stands for; shape (length,)."""
    words = np.frombuffer(_digest(name, 32), dtype="<u4")
    order = np.arange(length, dtype=np.int64)
    np.random.RandomState(words).shuffle(order)
    return order


def _digest(text: str, size: int) -> bytes:
    return hashlib.blake2b(text.encode("ascii"), digest_size=size).digest()
