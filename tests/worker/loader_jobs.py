"""Jobs whose samples are made one by one: with chance, slowly, or not at all."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from paceline.job import Batch, Job, Sample

SAMPLES = 64
BAD = 13


class Drawn(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Samples with noise from all three generators, as augmentation makes them."""

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        chance = torch.randn(4) + float(np.random.rand()) + random.random()
        return chance + index % 3, torch.tensor(index % 3)


class Augmented(Job):
    """Learns from them."""

    def model(self) -> nn.Module:
        return nn.Linear(4, 3)

    def dataset(self) -> Any:
        return Drawn()

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.05)


class _Bad(Drawn):
    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        if index == BAD:
            self.bad()
        return super().__getitem__(index)

    def bad(self) -> None:
        raise OSError("picture 13 is broken")


class _Deadly(_Bad):
    def bad(self) -> None:
        os.kill(os.getpid(), 9)


class _Endless(_Bad):
    def bad(self) -> None:
        threading.Event().wait()


class Raises(Augmented):
    """One sample cannot be read."""

    def dataset(self) -> Any:
        return _Bad()


class Dies(Augmented):
    """One sample kills the process that reads it."""

    def dataset(self) -> Any:
        return _Deadly()


class Hangs(Augmented):
    """One sample never comes."""

    def dataset(self) -> Any:
        return _Endless()


class OneProcess(Augmented):
    """Its dataset can be opened in one process only."""

    def dataset(self) -> Any:
        if "loader" in threading.current_thread().name or os.getppid() != int(os.environ.get("TEST_PARENT", "0")):
            raise RuntimeError("the file is locked")
        return Drawn()


@dataclass
class Labelled:
    """A batch as a dataclass."""

    inputs: torch.Tensor
    labels: list[int]
    names: dict[str, Any]


class AsDataclass(Augmented):
    """Its batches are a class of its own."""

    def collate(self, samples: Sequence[Sample]) -> Batch:
        labels = [int(sample[1]) for sample in samples]
        return Labelled(torch.stack([sample[0] for sample in samples]), labels, {"first": (labels[0], "x")})

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        return nn.functional.cross_entropy(model(batch.inputs), torch.tensor(batch.labels))


class Unsendable(Augmented):
    """Its batches cannot leave the process that made them."""

    def collate(self, samples: Sequence[Sample]) -> Batch:
        return [lambda: samples]
