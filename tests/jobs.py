"""Small jobs for tests of all levels, e.g. ``tests/jobs.py:DigitsLike``. No download, no data files."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from paceline.job import Job


def digits_like(n_samples: int, noise_seed: int = 7) -> TensorDataset:
    """Make images of shape (1, 8, 8) in ten classes: a fixed pattern per class plus noise; learnable, not trivial."""
    patterns = torch.randn(10, 1, 8, 8, generator=torch.Generator().manual_seed(6))
    generator = torch.Generator().manual_seed(noise_seed)
    labels = torch.randint(0, 10, (n_samples,), generator=generator)
    images = patterns[labels] + 1.5 * torch.randn(n_samples, 1, 8, 8, generator=generator)
    return TensorDataset(images, labels)


class DigitsLike(Job):
    """A CNN with BatchNorm (float and integer buffers) and dropout, SGD with momentum."""

    n_samples = 600

    def model(self) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(8 * 4 * 4, 10),
        )

    def dataset(self) -> TensorDataset:
        return digits_like(self.n_samples)

    def loss(self, model: nn.Module, batch: Any) -> Any:
        images, labels = batch
        return F.cross_entropy(model(images), labels)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        images, labels = digits_like(200, noise_seed=8).tensors
        return {"accuracy": (model(images).argmax(1) == labels).double().mean().item()}


class Steep(DigitsLike):
    """Its gradients are too large for float16 at the scale that a run begins with."""

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

    def loss(self, model: nn.Module, batch: Any) -> Any:
        images, labels = batch
        return 50.0 * F.cross_entropy(model(images), labels)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(model.parameters(), lr=0.01)


class Validated(DigitsLike):
    """Its workers measure it, on 200 samples."""

    evaluate = Job.evaluate

    def validation(self) -> TensorDataset:
        return digits_like(200, noise_seed=8)

    def validate(self, model: nn.Module, batch: Any) -> Any:
        assert not model.training
        images, labels = batch
        outputs = model(images)
        right, loss = (outputs.argmax(1) == labels).sum(), F.cross_entropy(outputs, labels, reduction="sum")
        return {"accuracy_sum": right, "loss_sum": loss}

    def metrics(self, means: dict[str, float]) -> dict[str, float]:
        return {**means, "error": 1.0 - means["accuracy"]}


class Plateau(Validated):
    """Its learning rate follows the loss of the validation data, and is cut often."""

    plateau_metric = "loss"

    def scheduler(self, optimizer: torch.optim.Optimizer) -> Any:
        return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=0.2)


class SlowlyValidated(Validated):
    """The same, a validation task takes a while."""

    def validate(self, model: nn.Module, batch: Any) -> Any:
        time.sleep(0.25)
        return super().validate(model, batch)


class DigitsLikeAdam(DigitsLike):
    """The same with Adam, which magnifies differences where a bias stands before BatchNorm."""

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(model.parameters(), lr=2e-3)


class DigitsLikeFloat64(DigitsLike):
    """The same with a float64 model."""

    def model(self) -> nn.Module:
        return super().model().double()

    def loss(self, model: nn.Module, batch: Any) -> Any:
        images, labels = batch
        return F.cross_entropy(model(images.double()), labels)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return {"loss": self.loss(model, digits_like(200, noise_seed=8).tensors).item()}


class DigitsLikeReversed(DigitsLike):
    """The same samples in another order: its fingerprint differs from DigitsLike's in the samples alone."""

    def dataset(self) -> TensorDataset:
        images, labels = digits_like(self.n_samples).tensors
        return TensorDataset(images.flip(0), labels.flip(0))


class DigitsLikeWider(DigitsLike):
    """A model of other shapes than DigitsLike's."""

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 10))


class DigitsLikeFewer(DigitsLike):
    """A shorter dataset than DigitsLike's."""

    n_samples = 500


class AugmentedDataset:
    """Draws from torch, numpy and random for each sample, so that a wrong seed shows."""

    def __init__(self, samples: TensorDataset) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image, label = self._samples[index]
        noise = torch.randn(1).item() + float(np.random.randn()) + random.gauss(0.0, 1.0)
        return {"image": image + 0.05 * noise, "label": label}


class Augmented(DigitsLike):
    """Random augmentation, tied and frozen and unused parameters, a constant buffer, groups, clipping, a scheduler.

    The loss is (sum, n).
    """

    def model(self) -> nn.Module:
        return TangledModel()

    def dataset(self) -> Any:
        return AugmentedDataset(digits_like(self.n_samples))

    def collate(self, samples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return {
            "image": torch.stack([sample["image"] for sample in samples]),
            "label": torch.stack([sample["label"] for sample in samples]),
        }

    def loss(self, model: nn.Module, batch: dict[str, torch.Tensor]) -> Any:
        counted = batch["label"] != 9
        losses = F.cross_entropy(model(batch["image"]), batch["label"], reduction="none")
        return losses[counted].sum(), counted.sum()

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        decayed = [p for p in model.parameters() if p.requires_grad and p.dim() > 1]
        others = [p for p in model.parameters() if p.requires_grad and p.dim() <= 1]
        return torch.optim.AdamW(
            [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}], lr=1e-3
        )

    def scheduler(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40)

    def before_step(self, model: nn.Module) -> None:
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return {}


class TangledModel(nn.Module):
    """Everything that a flat buffer has to get right in one model."""

    mask: torch.Tensor
    table: torch.Tensor
    last_batch: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 64)
        self.second = nn.Linear(64, 64)
        self.second.weight = self.first.weight
        self.norm = nn.BatchNorm1d(64)
        self.frozen = nn.Linear(64, 64)
        self.frozen.requires_grad_(False)
        self.unused = nn.Parameter(torch.ones(3))
        self.head = nn.Linear(64, 10)
        self.register_buffer("mask", torch.triu(torch.full((10, 10), float("-inf")), diagonal=1))
        self.register_buffer("table", torch.rand(64), persistent=False)
        self.register_buffer("scale", torch.full((1,), 0.1))
        self.register_buffer("last_batch", torch.zeros((), dtype=torch.int64))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.last_batch.copy_((1000 * images.sum()).long())
        hidden = F.relu(self.norm(self.first(images.flatten(1)))) * self.table
        hidden = F.dropout(self.second(hidden) + 0.1 * self.frozen(hidden), 0.1, training=self.training)
        logits: torch.Tensor = self.head(hidden)
        return logits


class Tiny(Job):
    """1,000 parameters and a loss that computes next to nothing: for overheads."""

    def model(self) -> nn.Module:
        return nn.Linear(99, 10)

    def dataset(self) -> TensorDataset:
        generator = torch.Generator().manual_seed(3)
        return TensorDataset(torch.randn(1024, 99, generator=generator), torch.randn(1024, 10, generator=generator))

    def loss(self, model: nn.Module, batch: Any) -> Any:
        inputs, targets = batch
        return F.mse_loss(model(inputs), targets)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        inputs, targets = self.dataset().tensors
        return {"mse": F.mse_loss(model(inputs), targets).item()}


class FailsOnSample(Tiny):
    """Raises for every batch that holds sample 5, wherever it is computed."""

    def dataset(self) -> Any:
        return [(torch.full((99,), float(index)), torch.zeros(10)) for index in range(64)]

    def loss(self, model: nn.Module, batch: Any) -> Any:
        if (batch[0][:, 0] == 5.0).any():
            raise ValueError("sample 5 cannot be read")
        return super().loss(model, batch) * 1e-6


class NonFiniteOnSample(FailsOnSample):
    """Gives an infinite loss for every batch that holds sample 5."""

    def loss(self, model: nn.Module, batch: Any) -> Any:
        factor = float("inf") if (batch[0][:, 0] == 5.0).any() else 1e-6
        return Tiny.loss(self, model, batch) * factor


class Slow(Tiny):
    """Takes about 20 ms per task."""

    def loss(self, model: nn.Module, batch: Any) -> Any:
        time.sleep(0.02)
        return super().loss(model, batch)


class Large(Tiny):
    """A model of 200 MB whose forward and backward are cheap for their size."""

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(99, 5000, bias=False), nn.Linear(5000, 9900, bias=False), nn.Linear(9900, 10))


class Wide(DigitsLike):
    """DigitsLike with 0.26 million parameters: about 1 MB to pull, and 2 MB to push in exact sums."""

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 3500), nn.ReLU(), nn.Linear(3500, 10))


class Broad(DigitsLike):
    """DigitsLike with 0.6 million parameters: its contributions take several chunks."""

    def model(self) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(8 * 4 * 4, 4096),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(4096, 10),
        )


class Averaging(DigitsLike):
    """Keeps an average of its gradients and draws noise in before_step; Adam and a scheduler."""

    def __init__(self) -> None:
        self.average: list[torch.Tensor] = []
        self.count = 0

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(model.parameters(), lr=0.01, amsgrad=True)

    def scheduler(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        return torch.optim.lr_scheduler.MultiStepLR(optimizer, [5, 11])

    def before_step(self, model: nn.Module) -> None:
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        self.average = self.average or [torch.zeros_like(gradient) for gradient in gradients]
        self.count += 1
        for average, gradient in zip(self.average, gradients, strict=True):
            average.mul_(0.9).add_(gradient, alpha=0.1)
            gradient.add_(average, alpha=1 / self.count).add_(torch.randn_like(gradient), alpha=1e-3)

    def state_dict(self) -> dict[str, Any]:
        return {"average": self.average, "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.average, self.count = state["average"], state["count"]


class Note:
    """Something that is more than plain values."""


class OddState(Tiny):
    """Its optimizer keeps an object of its own."""

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        class Noting(torch.optim.SGD):
            def step(self, closure: Any = None) -> Any:
                super().step(closure)
                self.state[self.param_groups[0]["params"][0]]["note"] = Note()

        return Noting(model.parameters(), lr=0.1)
