"""MNIST from the four idx files in a folder of yours, plain or gzipped.

paceline run examples/mnist.py:Mnist --data ~/mnist --workers 4 --tasks 16 --micro-batch 64 --epochs 2
"""

import gzip
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from paceline.errors import UsageError
from paceline.job import Job

# idx: two zero bytes, the type of an item (8: unsigned byte), the number of dimensions, then each as big-endian uint32.
UNSIGNED_BYTE = 8
PIXEL_MEAN, PIXEL_SD = 0.1307, 0.3081
EVALUATION_BATCH = 1000


def read_idx(folder: Path, name: str, dimensions: int) -> Tensor:
    """Read ``name`` or ``name.gz`` of a folder.

    Returns:
        uint8 tensor of the shape that the file states.
    Raises:
        UsageError: neither file is there, or it is not a whole idx file of bytes with that many dimensions.
    """
    path = next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)
    if path is None:
        raise UsageError(f"no file {name} or {name}.gz in the data folder {folder}")
    raw = path.read_bytes()
    try:
        content = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UsageError(f"{path} is not a whole gzip file: {error}") from error
    start = 4 + 4 * dimensions
    if len(content) < start or content[:4] != bytes([0, 0, UNSIGNED_BYTE, dimensions]):
        raise UsageError(
            f"{path} is not an idx file of bytes with {dimensions} dimensions: it begins {content[:4].hex()}"
        )
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    items = int(np.prod(shape))
    if len(content) - start != items:
        raise UsageError(f"{path} holds {len(content) - start} items, but its header says {items}")
    return torch.frombuffer(bytearray(content[start:]), dtype=torch.uint8).reshape(shape)


def scaled(images: Tensor) -> Tensor:
    """Turn bytes of shape (n, 28, 28) into normalised float32 of shape (n, 1, 28, 28)."""
    return ((images.float() / 255.0 - PIXEL_MEAN) / PIXEL_SD).unsqueeze(1)


class Mnist(Job):
    """A CNN of 206,922 parameters."""

    def model(self) -> nn.Module:
        """Build the CNN."""
        return nn.Sequential(
            nn.Conv2d(1, 16, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * 7 * 7, 128),
            nn.ReLU(),
            nn.Linear(128, 10),
        )

    def dataset(self) -> TensorDataset:
        """Open the training images; they stay bytes until a batch is made of them."""
        return self._open("train")

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Compute the mean cross-entropy."""
        images, labels = batch
        return F.cross_entropy(model(images), labels)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(model.parameters(), lr=1e-3)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Measure the accuracy on the test images."""
        device = next(model.parameters()).device
        images, labels = self._open("t10k").tensors
        right = 0
        for start in range(0, len(labels), EVALUATION_BATCH):
            part = slice(start, start + EVALUATION_BATCH)
            guesses = model(scaled(images[part]).to(device)).argmax(dim=1).cpu()
            right += int((guesses == labels[part]).sum())
        return {"accuracy": right / len(labels)}

    def collate(self, samples: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Stack the images of a batch and scale them at once."""
        images, labels = zip(*samples, strict=True)
        return scaled(torch.stack(images)), torch.stack(labels).long()

    def _open(self, side: str) -> TensorDataset:
        if self.data is None:
            raise UsageError("Mnist needs --data FOLDER, the folder with MNIST's four idx files")
        if not self.data.is_dir():
            raise UsageError(f"--data {self.data} is not a folder; expected the one with MNIST's four idx files")
        images = read_idx(self.data, f"{side}-images-idx3-ubyte", dimensions=3)
        labels = read_idx(self.data, f"{side}-labels-idx1-ubyte", dimensions=1)
        if tuple(images.shape[1:]) != (28, 28):
            raise UsageError(f"the images in {self.data} are {tuple(images.shape[1:])} pixels; expected (28, 28)")
        if len(images) != len(labels):
            raise UsageError(f"{self.data} has {len(images)} {side} images, but {len(labels)} labels")
        return TensorDataset(images, labels)
