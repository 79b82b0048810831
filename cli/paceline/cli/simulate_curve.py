"""The loss curve of `ata-cifar`: a CNN trained once; every policy that makes B results an update goes along it.

The CNN has 158,684 parameters, as many as the ATA paper's 160 thousand: three convolutions of 16, 32 and 64 channels
and two linear layers, for 3 x 32 x 32 pixels and 100 classes; images of other sizes are padded or enlarged to that.

Source: Maranjyan et al. (2025), section 6 (layer widths are not given there); Adam with the constant step 8e-5.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paceline.errors import UsageError
from paceline.simulation.experiments.listener import Listener

STEP = 8e-5
# Of one task: the paper does not say; small ones keep the curve's training short.
MICRO_BATCH = 4
SIDE = 32
_CIFAR_RECORD = 2 + 3 * SIDE * SIDE

Bytes = npt.NDArray[np.uint8]


class Curve:
    """Training data, and the training.

    Args:
        folder: with cifar-100-binary/train.bin or MNIST's idx files; None: scikit-learn's digits.

    Raises:
        UsageError: the folder has neither, or a file is not what its name says.
    """

    def __init__(self, folder: Path | None) -> None:
        self.name, self._images, self._labels = _open(folder)

    def train(self, tasks: int, rounds: int, seed: int, listener: Listener) -> dict[str, Any]:
        """Train and tell the loss of each round, on the images of that round before the update.

        Returns:
            the data's name, `rounds` (1, 2, ...) and `losses`.
        """
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        chosen = np.random.default_rng([seed, 3])
        model = cnn()
        optimizer = torch.optim.Adam(model.parameters(), lr=STEP)
        losses: list[float] = []
        while len(losses) < rounds and not listener.stopped():
            place = chosen.integers(0, len(self._labels), tasks * MICRO_BATCH)
            pixels = torch.from_numpy(self._images[place]).float() / 127.5 - 1.0
            loss = F.cross_entropy(model(_sized(pixels)), torch.from_numpy(self._labels[place]).long())
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
        return {"data": self.name, "rounds": list(range(1, len(losses) + 1)), "losses": losses}


def cnn() -> nn.Module:
    """Build the CNN of 158,684 parameters."""
    layers: list[nn.Module] = []
    for before, after in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(1024, 120), nn.ReLU(), nn.Linear(120, 100))


def _sized(pixels: Tensor) -> Tensor:
    """Make float pixels of shape (n, channels, side, side) three channels of 32 x 32: enlarged, then padded."""
    factor = SIDE // pixels.shape[-1]
    larger = pixels.repeat_interleave(factor, dim=-1).repeat_interleave(factor, dim=-2)
    margin = (SIDE - larger.shape[-1]) // 2
    return F.pad(larger, (margin,) * 4, value=-1.0).expand(-1, 3, -1, -1)


def _open(folder: Path | None) -> tuple[str, Bytes, Bytes]:
    if folder is None:
        return _digits()
    cifar = [path for path in (folder / "cifar-100-binary" / "train.bin", folder / "train.bin") if path.is_file()]
    if cifar:
        return _cifar(cifar[0])
    images = [path for path in folder.glob("train-images-idx3-ubyte*") if path.is_file()]
    labels = [path for path in folder.glob("train-labels-idx1-ubyte*") if path.is_file()]
    if images and labels:
        return "MNIST", _idx(images[0], 3)[:, None], _idx(labels[0], 1)
    raise UsageError(f"--data is {str(folder)!r}: expected cifar-100-binary/train.bin or MNIST's train-*-ubyte files")


def _cifar(path: Path) -> tuple[str, Bytes, Bytes]:
    """Read CIFAR-100's binary version: records of a coarse and a fine label and 3 x 32 x 32 bytes."""
    content = np.fromfile(path, dtype=np.uint8)
    if not content.size or content.size % _CIFAR_RECORD:
        raise UsageError(
            f"{path} has {content.size} bytes: expected records of {_CIFAR_RECORD}, CIFAR-100's binary version"
        )
    records = content.reshape(-1, _CIFAR_RECORD)
    return "CIFAR-100", records[:, 2:].reshape(-1, 3, SIDE, SIDE), records[:, 1].copy()


def _idx(path: Path, dimensions: int) -> Bytes:
    raw = path.read_bytes()
    try:
        content = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UsageError(f"{path} is not a whole gzip file: {error}") from None
    start = 4 + 4 * dimensions
    shape = struct.unpack(f">{dimensions}I", content[4:start]) if len(content) >= start else ()
    if content[:4] != bytes([0, 0, 8, dimensions]) or len(content) - start != int(np.prod(shape, dtype=np.int64)):
        raise UsageError(f"{path} is not a whole idx file of bytes with {dimensions} dimensions")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def _digits() -> tuple[str, Bytes, Bytes]:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UsageError(
            "--data is missing: expected a folder with CIFAR-100's binary version or MNIST, or scikit-learn installed"
        ) from None
    digits = load_digits()
    # Their pixels go from 0 to 16.
    return "digits", np.minimum(digits.images[:, None] * 16.0, 255.0).astype(np.uint8), digits.target.astype(np.uint8)
