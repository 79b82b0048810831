"""Jobs that a server cannot do everything with."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.data import TensorDataset

from paceline.job import Job


class Silent(Job):
    """Has no evaluate."""

    def model(self) -> nn.Module:
        return nn.Linear(3, 1)

    def dataset(self) -> TensorDataset:
        return TensorDataset(torch.zeros(100, 3))

    def loss(self, model: nn.Module, batch: Any) -> Any:
        return model(batch[0]).mean()

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.1)


class Broken(Silent):
    """Cannot build its model."""

    def model(self) -> nn.Module:
        raise RuntimeError("no model today")
