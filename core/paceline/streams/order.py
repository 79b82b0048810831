"""In which order samples that lie in shards come. Pure; no I/O, no torch.

An epoch goes through the shards in a shuffled order, so many of them at a time (a group), and through each group in
blocks: a block is as long as a task and holds samples of one shard, drawn without replacement. So every sample comes
once per epoch, as it does without shards (tasks.py). What is left of a shard, less than a block, comes at the end of
its group. So where shards hold whole tasks a task's samples lie in one of them; else in two, but for the end of a
group. What is in memory is the order of the shards and that of the groups in use.

Ours. WebDataset shuffles the shards too, and then what a buffer holds; there a sample's place depends on who reads.
"""

from __future__ import annotations

import functools
from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from paceline.tasks import epoch_order, shuffled


class ShardOrder:
    """See the module.

    Args:
        sizes: samples of each shard, each >= 1.
        mixed: shards in a group, >= 1.
        block: samples in a block, >= 1.

    Complexity: memory O(shards) + a few times 8 bytes per sample of a group; time of a task O(its samples), and
        O(samples of the group) for the first of a group.
    """

    def __init__(self, sizes: Sequence[int], mixed: int, block: int) -> None:
        self._sizes = np.array(sizes, dtype=np.int64)
        self._first = np.concatenate([[0], np.cumsum(self._sizes)])
        self._mixed = mixed
        self.block = block
        # Tasks come in their order, but for those at a border and those that are done again.
        self._group = functools.lru_cache(maxsize=4)(self._make_group)
        self._epoch = functools.lru_cache(maxsize=4)(self._make_epoch)

    @property
    def n_samples(self) -> int:
        """Of all shards."""
        return int(self._first[-1])

    def shard_of(self, index: int) -> tuple[int, int]:
        """Say in which shard a sample lies, and at which place in it."""
        shard = bisect_right(self._first, index) - 1
        return shard, index - int(self._first[shard])

    def task_samples(self, seed: int, task: int) -> NDArray[np.int64]:
        """Give the sample indices of a task, as long as a block; see tasks.task_samples.

        Raises:
            ValueError: task is negative, or there are fewer samples than a block has.
        """
        if task < 0 or self.block > self.n_samples:
            raise ValueError(f"task {task} of {self.block} among {self.n_samples} samples: no such task")
        epoch, start = divmod(task * self.block, self.n_samples)
        parts: list[NDArray[np.int64]] = []
        missing = self.block
        while missing:
            part = self._run(seed, epoch, start, missing)
            parts.append(part)
            missing -= len(part)
            start += len(part)
            if start == self.n_samples:
                epoch, start = epoch + 1, 0
        return np.concatenate(parts)

    def shards_at(self, seed: int, task: int) -> tuple[list[int], list[int]]:
        """Give the shards of the group in which a task ends, and of the one after it, maybe of the next epoch."""
        epoch, place = divmod((task + 1) * self.block - 1, self.n_samples)
        _, ends = self._epoch(seed, epoch)
        group = bisect_right(ends, place)
        after = (epoch + 1, 0) if group + 1 == len(ends) else (epoch, group + 1)
        here, there = self._shards(seed, epoch, group), self._shards(seed, *after)
        return here.tolist(), there.tolist()

    def _run(self, seed: int, epoch: int, start: int, length: int) -> NDArray[np.int64]:
        """Give samples from a place of an epoch on, at most to the end of their group."""
        _, ends = self._epoch(seed, epoch)
        number = bisect_right(ends, start)
        group = self._group(seed, epoch, number)
        offset = start - (int(ends[number]) - len(group))
        return group[offset : offset + length]

    def _make_epoch(self, seed: int, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Give an epoch's order of the shards, and the place at which each group ends."""
        order = epoch_order(seed, epoch, len(self._sizes))
        starts = np.arange(0, len(order), self._mixed)
        return order, np.cumsum(np.add.reduceat(self._sizes[order], starts))

    def _shards(self, seed: int, epoch: int, group: int) -> NDArray[np.int64]:
        order, _ = self._epoch(seed, epoch)
        return order[group * self._mixed : (group + 1) * self._mixed]

    def _make_group(self, seed: int, epoch: int, group: int) -> NDArray[np.int64]:
        blocks: list[NDArray[np.int64]] = []
        rest: list[NDArray[np.int64]] = []
        for shard in self._shards(seed, epoch, group).tolist():
            samples = shuffled(f"shard/{seed}/{epoch}/{shard}", int(self._sizes[shard])) + self._first[shard]
            whole = len(samples) // self.block * self.block
            blocks += [samples[start : start + self.block] for start in range(0, whole, self.block)]
            rest.append(samples[whole:])
        if self._mixed > 1:
            blocks = [blocks[number] for number in shuffled(f"group/{seed}/{epoch}/{group}", len(blocks)).tolist()]
        made = np.concatenate([*blocks, *rest])
        made.flags.writeable = False
        return made
