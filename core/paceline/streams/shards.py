"""A dataset whose samples lie in shards, of which a machine has a few at a time."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from paceline.errors import UsageError
from paceline.job import Sample, SampleSource
from paceline.streams.cache import ShardCache, ShardError, is_remote
from paceline.streams.order import ShardOrder
from paceline.tracebacks import describe

# Opens a shard that lies in this file of this machine.
Open = Callable[[Path], SampleSource]


@dataclass(frozen=True, slots=True)
class Shard:
    """A file of samples.

    Attributes:
        url: any that fsspec knows (s3://bucket/a.tar, https://host/a.tar), or the path of a local file.
        samples: number in it.
        nbytes: its length, where it is known: a shard of another length is refused.
    """

    url: str
    samples: int
    nbytes: int | None = None


class Shards:
    """A map-style dataset over the samples of all shards, and the order in which tasks go through them.

    A task's samples lie in one shard, or in a few (see order.py). Remote shards are copied to this machine when a task
    needs them, and those that come next in the order meanwhile.

    Args:
        shards: in the order in which their samples are numbered; the same on all machines.
        open: opens a copy: gives a map-style dataset with len().
        mixed: so many shards are gone through at a time. More mix better, and need more room in the cache.
        decode: makes a sample of what the opened shard gives.

    Raises:
        UsageError: no shards, one without samples, or mixed below 1.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        open: Open,  # noqa: A002  # it is what it does
        *,
        mixed: int = 1,
        decode: Callable[[Any], Sample] | None = None,
    ) -> None:
        if not shards:
            raise UsageError("shards: there are none, expected at least one")
        for shard in shards:
            if shard.samples < 1:
                raise UsageError(f"shard {shard.url!r} has {shard.samples} samples: expected at least 1")
        if mixed < 1:
            raise UsageError(f"mixed is {mixed}: expected at least 1 shard at a time")
        self.shards = tuple(shards)
        self.mixed = mixed
        self._open = open
        self._decode = decode
        self._order = self._order_of(1)
        self._opened: OrderedDict[int, SampleSource] = OrderedDict()
        self._cache = ShardCache()
        self._ahead: threading.Thread | None = None
        self._following: list[int] = []

    def below(self, folder: Path) -> Self:
        """Take paths that are relative as below a folder."""
        self.shards = tuple(in_folder(self.shards, str(folder)))
        return self

    def use(self, cache: ShardCache) -> Self:
        """Keep copies there from now on."""
        self._cache = cache
        return self

    def __len__(self) -> int:
        """Say how many samples there are."""
        return self._order.n_samples

    def __getitem__(self, index: int) -> Sample:
        """Give one sample."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """Give several samples, in order.

        Raises:
            ShardError: one of their shards cannot be had, or is not what the list says.
        """
        places: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for row, index in enumerate(indices):
            shard, place = self._order.shard_of(index)
            places[shard].append((row, place))
        samples: list[Sample] = [None] * len(indices)
        for shard, wanted in places.items():
            for (row, _), sample in zip(wanted, self._read(shard, [place for _, place in wanted]), strict=True):
                samples[row] = sample if self._decode is None else self._decode(sample)
        return samples

    def task_samples(self, seed: int, task: int, micro_batch: int) -> NDArray[np.int64]:
        """Give the sample indices of a task; shape (micro_batch,). See order.ShardOrder."""
        return self._of(micro_batch).task_samples(seed, task)

    def begin_next(self, seed: int, task: int, micro_batch: int) -> None:
        """Copy the shards that come after those of a task, beside what this thread goes on with.

        Each group once, and only as far as there is room beside the present one.
        """
        present, following = self._of(micro_batch).shards_at(seed, task)
        if following == self._following or (self._ahead is not None and self._ahead.is_alive()):
            return
        self._following = following
        remote = [self.shards[number] for number in following if is_remote(self.shards[number].url)]
        if remote:
            beside = {self.shards[number].url for number in present}
            self._ahead = threading.Thread(target=self._fetch, args=(remote, beside), name="shards-ahead", daemon=True)
            self._ahead.start()

    def _fetch(self, shards: Sequence[Shard], beside: set[str]) -> None:
        for shard in shards:
            # Who needs it will hear why.
            with contextlib.suppress(ShardError):
                self._cache.fetch(shard.url, shard.nbytes, beside)
            beside.add(shard.url)

    def _of(self, micro_batch: int) -> ShardOrder:
        if self._order.block != micro_batch:
            self._order = self._order_of(micro_batch)
        return self._order

    def _order_of(self, block: int) -> ShardOrder:
        return ShardOrder([shard.samples for shard in self.shards], self.mixed, block)

    def _read(self, number: int, places: list[int]) -> Sequence[Sample]:
        source = self._opened.get(number)
        if source is None:
            source = self._opened[number] = self._open_shard(self.shards[number])
            # Those of a group, and one where a task straddles two.
            while len(self._opened) > self.mixed + 1:
                self._opened.popitem(last=False)
        self._opened.move_to_end(number)
        fetch = getattr(source, "__getitems__", None)
        return fetch(places) if fetch else [source[place] for place in places]

    def _open_shard(self, shard: Shard) -> SampleSource:
        if is_remote(shard.url):
            with self._cache.copy_of(shard.url, shard.nbytes) as copy:
                source = self._opened_from(copy, shard)
        else:
            path = Path(shard.url)
            if not path.is_file():
                raise ShardError(f"shard {shard.url!r} does not exist on this machine")
            source = self._opened_from(path, shard)
        if len(source) != shard.samples:
            raise ShardError(f"shard {shard.url!r} has {len(source)} samples: expected {shard.samples}")
        return source

    def _opened_from(self, path: Path, shard: Shard) -> SampleSource:
        try:
            return self._open(path)
        except Exception as error:
            raise ShardError(f"shard {shard.url!r} cannot be opened: {describe(error)}") from error


def use_cache(cache: ShardCache, *datasets: SampleSource | None) -> None:
    """Let those of the datasets that lie in shards keep copies there."""
    for dataset in datasets:
        if isinstance(dataset, Shards):
            dataset.use(cache)


def in_folder(shards: Sequence[Shard], folder: str) -> list[Shard]:
    """Take urls that are relative as below a folder (a path, or a url that ends without a slash)."""
    return [
        shard
        if is_remote(shard.url) or Path(shard.url).is_absolute()
        else dataclasses.replace(shard, url=f"{folder}/{shard.url}")
        for shard in shards
    ]
