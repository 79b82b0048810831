"""Jobs that `paceline check` has something to say about."""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import IterableDataset, TensorDataset

from paceline.job import Job
from tests.jobs import OddState
from tests.jobs import Tiny as Sound

COUNTER = itertools.count()

__all__ = ["OddState"]


class Tiny(Sound):
    """One whose evaluation does not open its data."""

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return {}


class Empty(Tiny):
    def dataset(self) -> Any:
        return []


class Stream(Tiny):
    def dataset(self) -> Any:
        class Rows(IterableDataset[int]):
            def __iter__(self) -> Iterator[int]:
                return iter(range(10))

            def __len__(self) -> int:
                return 10

        return Rows()


class NotScalar(Tiny):
    def loss(self, model: nn.Module, batch: Any) -> Any:
        return model(batch[0]).mean(1)


class NotFinite(Tiny):
    def loss(self, model: nn.Module, batch: Any) -> Any:
        return super().loss(model, batch) * float("nan")


class Detached(Tiny):
    def loss(self, model: nn.Module, batch: Any) -> Any:
        return super().loss(model, batch).detach()


class Raises(Tiny):
    def loss(self, model: nn.Module, batch: Any) -> Any:
        raise ValueError("labels are words")


class Exits(Tiny):
    def loss(self, model: nn.Module, batch: Any) -> Any:
        sys.exit("enough")


class SparseEmbedding(Tiny):
    def model(self) -> nn.Module:
        return nn.Sequential(nn.Embedding(10, 4, sparse=True), nn.Linear(4, 1))


class NeedsClosure(Tiny):
    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.LBFGS(model.parameters())


class SparseAdam(Tiny):
    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SparseAdam(list(model.parameters()))


class WordsForNumbers(Tiny):
    def evaluate(self, model: nn.Module) -> Any:
        return {"mse": "low"}


class EvaluateExits(Tiny):
    def evaluate(self, model: nn.Module) -> Any:
        sys.exit(3)


class Overflows(Tiny):
    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=1e38)

    def before_step(self, model: nn.Module) -> None:
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad.fill_(1e30)


class BrokenStep(Tiny):
    def before_step(self, model: nn.Module) -> None:
        raise RuntimeError("clipping failed")


class TwoFaults(Empty):
    """Neither data nor a model."""

    def model(self) -> Any:
        return "a model"


class Unused(Tiny):
    """Has a layer that its loss leaves out, and one that its optimizer does."""

    def model(self) -> nn.Module:
        return nn.ModuleDict({"used": nn.Linear(99, 10), "idle": nn.Linear(3, 3)})

    def loss(self, model: nn.Module, batch: Any) -> Any:
        assert isinstance(model, nn.ModuleDict)
        return F.mse_loss(model["used"](batch[0]), batch[1])

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD([p for name, p in model.named_parameters() if name != "used.bias"], lr=0.1)


class OtherSamples(Tiny):
    """Its samples are others each time."""

    def dataset(self) -> Any:
        class Rows:
            def __len__(self) -> int:
                return 64

            def __getitem__(self, index: int) -> Any:
                return torch.full((99,), float(next(COUNTER) % 7)), torch.zeros(10)

        return Rows()


class OtherLoss(Tiny):
    """Its loss is another each time."""

    def loss(self, model: nn.Module, batch: Any) -> Any:
        return super().loss(model, batch) * (1 + next(COUNTER))


class Unsendable(Tiny):
    """Its batches cannot leave the process."""

    def collate(self, samples: Any) -> Any:
        return [*super().collate(samples), threading.Lock()]

    def loss(self, model: nn.Module, batch: Any) -> Any:
        return super().loss(model, batch[:2])


class HalfValidates(Sound):
    evaluate = Job.evaluate

    def validate(self, model: nn.Module, batch: Any) -> Any:
        (numbers,) = batch
        return {"mean_sum": numbers.sum()}


class Validates(HalfValidates):
    def validation(self) -> Any:
        return TensorDataset(torch.arange(100.0))


class MeasuresNothing(Sound):
    evaluate = Job.evaluate


class FollowsMetric(Sound):
    """Its learning rate follows a metric that nobody measures between rounds."""

    plateau_metric = "mse"

    def scheduler(self, optimizer: torch.optim.Optimizer) -> Any:
        return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
