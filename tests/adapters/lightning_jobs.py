"""LightningModules as people write them, and jobs made of them."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, WeightedRandomSampler

from paceline.adapters.lightning import LightningJob
from tests.jobs import digits_like


class Digits(pl.LightningModule):
    def __init__(self, lr: float = 0.05) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        images, labels = batch
        outputs = self.net(images)
        loss = F.cross_entropy(outputs, labels)
        self.log("train/accuracy", (outputs.argmax(1) == labels).float().mean(), prog_bar=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        images, labels = batch
        outputs = self.net(images)
        self.log_dict(
            {
                "val_loss": F.cross_entropy(outputs, labels),
                "val_accuracy": (outputs.argmax(1) == labels).float().mean(),
            }
        )

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.hparams["lr"] / 10, weight_decay=0.01)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=self.hparams["lr"], total_steps=40)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class Data(pl.LightningDataModule):
    def setup(self, stage: str) -> None:
        self.train, self.val = digits_like(160), digits_like(60, noise_seed=8)

    def train_dataloader(self) -> Any:
        return DataLoader(self.train, batch_size=8, shuffle=True)

    def val_dataloader(self) -> Any:
        return DataLoader(self.val, batch_size=8)


job = LightningJob(Digits, Data, gradient_clip_val=0.5)
handed_over = LightningJob(Digits(), Data())


class ByHand(Digits):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False


class TwoOptimizers(Digits):
    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(self.parameters(), lr=0.1), torch.optim.SGD(self.parameters(), lr=0.2)]


class ByEpoch(Digits):
    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)]


class OnPlateau(Digits):
    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val_loss"}}


class OwnStep(Digits):
    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError


class Sampled(Data):
    def train_dataloader(self) -> Any:
        return DataLoader(self.train, batch_size=8, sampler=WeightedRandomSampler([1.0] * 160, 160))


class Stream(IterableDataset[int]):
    def __iter__(self) -> Any:
        return iter(range(8))


class Streamed(Data):
    def train_dataloader(self) -> Any:
        return DataLoader(Stream(), batch_size=8)
