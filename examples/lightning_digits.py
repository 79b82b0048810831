"""Handwritten digits as a LightningModule and a LightningDataModule; paceline trains them as they are.

    paceline run examples/lightning_digits.py:job --workers 3 --pace 1,2,4 --micro-batch 32 --rounds 60 --eval-every 20

Needs the extras: pip install 'paceline[lightning,examples]'.
"""

import lightning.pytorch as pl
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from paceline.adapters.lightning import LightningJob


class Digits(pl.LightningModule):
    """A small CNN."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 10)
        )

    def training_step(self, batch, batch_idx):
        """Give the loss."""
        images, labels = batch
        outputs = self.net(images)
        self.log("train/accuracy", (outputs.argmax(1) == labels).float().mean())
        return F.cross_entropy(outputs, labels)

    def validation_step(self, batch, batch_idx):
        """Log what the model is worth."""
        images, labels = batch
        outputs = self.net(images)
        self.log("val_loss", F.cross_entropy(outputs, labels))
        self.log("val_accuracy", (outputs.argmax(1) == labels).float().mean())

    def configure_optimizers(self):
        """Give AdamW, with one cycle over the 60 rounds."""
        optimizer = torch.optim.AdamW(self.parameters())
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.01, total_steps=61)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class Data(pl.LightningDataModule):
    """1,797 pictures, every fifth of them for validation."""

    def setup(self, stage):
        """Read them."""
        digits = load_digits()
        images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
        labels = torch.tensor(digits.target)
        held = torch.arange(len(labels)) % 5 == 0
        self.train, self.val = TensorDataset(images[~held], labels[~held]), TensorDataset(images[held], labels[held])

    def train_dataloader(self):
        """Give the training pictures; batch size and order are paceline's."""
        return DataLoader(self.train, batch_size=32, shuffle=True)

    def val_dataloader(self):
        """Give the others."""
        return DataLoader(self.val, batch_size=32)


job = LightningJob(Digits, Data)
