"""What adapters are handed: a thing, or how it is made."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

import torch
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler

from paceline.errors import UsageError
from paceline.job import Batch, Sample, SampleSource

T = TypeVar("T")

# A model, or a class or function that makes one: only then does the run's seed draw its weights.
ModuleOrMaker = torch.nn.Module | Callable[[], torch.nn.Module]


def made(thing: T | Callable[[], T]) -> T:
    """Give a fresh thing: a copy of the one that was handed over, or what its maker makes."""
    if isinstance(thing, type) or (callable(thing) and not isinstance(thing, torch.nn.Module)):
        fresh: T = thing()
        return fresh
    return copy.deepcopy(cast(T, thing))


class LoaderParts:
    """What paceline takes of a DataLoader: the samples, and how they become a batch.

    It draws the order itself, so that a task is the same everywhere; batch size and workers are its own settings.

    Raises:
        UsageError: an order of its own, or batches of its own.
    """

    def __init__(self, loader: Any, what: str) -> None:
        if not isinstance(loader, DataLoader):
            raise UsageError(f"{what} gave a {type(loader).__name__}: expected one torch DataLoader")
        if loader.batch_size is None:
            raise UsageError(f"{what} gave a DataLoader with a batch_sampler or without batches: expected batch_size")
        stream = isinstance(loader.dataset, IterableDataset)  # refused later, by its own name
        if not stream and type(loader.sampler) not in (RandomSampler, SequentialSampler):
            kind = type(loader.sampler).__name__
            raise UsageError(f"{what} gave a DataLoader with a {kind}: expected none, since tasks name their samples")
        self.dataset = cast(SampleSource, loader.dataset)
        self.collate_fn: Callable[[Any], Batch] = loader.collate_fn

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Make a batch."""
        return self.collate_fn(list(samples))


def same_collate(one: LoaderParts, other: LoaderParts) -> bool:
    """Tell whether two loaders make batches alike, as far as names tell."""
    names = [getattr(parts.collate_fn, "__qualname__", type(parts.collate_fn)) for parts in (one, other)]
    return names[0] == names[1]


def batch_size_of(batch: Any) -> int:
    """Count the samples of a batch by its first tensor, as Lightning does.

    Raises:
        ValueError: there is none.
    """
    for tensor in _tensors(batch):
        return int(tensor.size(0)) if tensor.dim() else 1
    raise ValueError("the batch holds no tensor by which to count its samples")


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
