"""Tells pictures apart: one folder of pictures for each class, in data/train and data/test.

paceline run {{job}}
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, UnidentifiedImageError
from torch import Tensor, nn
from torch.utils.data import Dataset

from paceline.errors import UsageError
from paceline.job import Job

SIDE = 32  # pictures are brought to this size
WIDTH = 16  # channels of the first layer; 64 makes a ResNet-18
SHIFT = 4  # pictures are moved by so many pixels at most, when they are trained on
MEAN, SD = 0.45, 0.25  # of the pixels, roughly
EVALUATION_BATCH = 256


class Folder(Dataset[tuple[Tensor, int]]):
    """Pictures and their classes, in the order of their paths: it must be the same order on all machines."""

    def __init__(self, root: Path, *, augment: bool) -> None:
        classes = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
        if not classes:
            # A UsageError is shown as one line, without a traceback.
            raise UsageError(f"{root} has no class folders: put one folder of pictures there for each class")
        self.classes = [path.name for path in classes]
        self.files: list[tuple[Path, int]] = []
        for label, folder in enumerate(classes):
            found = sorted(path for path in folder.iterdir() if path.is_file())
            if not found:
                raise UsageError(f"{folder} is empty: put pictures of the class {folder.name!r} there")
            self.files += [(path, label) for path in found]
        self._augment = augment

    def __len__(self) -> int:
        """Say how many pictures there are."""
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Load one picture, shape (3, SIDE, SIDE), and its class."""
        path, label = self.files[index]
        try:
            with Image.open(path) as image:
                pixels = np.array(image.convert("RGB").resize((SIDE, SIDE)), dtype=np.float32)
        except (OSError, UnidentifiedImageError) as error:
            raise ValueError(f"{path} cannot be read as a picture: {error}") from error
        picture = (torch.from_numpy(pixels).permute(2, 0, 1) / 255.0 - MEAN) / SD
        return self._changed(picture) if self._augment else picture, label

    def _changed(self, picture: Tensor) -> Tensor:
        """Shift and mirror it. paceline seeds torch's generator for each task, so whoever loads it gets the same."""
        across, down = torch.randint(0, 2 * SHIFT + 1, (2,)).tolist()
        picture = F.pad(picture, (SHIFT,) * 4)[:, down : down + SIDE, across : across + SIDE]
        return picture.flip(2) if torch.rand(()) < 0.5 else picture


class Block(nn.Module):
    """Two convolutions and a way around them."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False),
            nn.GroupNorm(8, after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, 1, 1, bias=False),
            nn.GroupNorm(8, after),
        )
        same = stride == 1 and before == after
        self.around = nn.Identity() if same else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Add what the body makes of x to x."""
        return F.relu(self.body(x) + self.around(x))


class Pictures(Job):
    """A small ResNet. Group norm instead of batch norm: a batch's statistics would be those of one task."""

    def folder(self, name: str, *, augment: bool) -> Folder:
        """Open `train` or `test` of the folder that --data names; each machine has its own copy."""
        if self.data is None:
            raise UsageError("this job needs --data: the folder with the folders train and test")
        return Folder(self.data / name, augment=augment)

    def model(self) -> nn.Module:
        """Build the model; the weights are drawn under the run's seed."""
        layers: list[nn.Module] = [nn.Conv2d(3, WIDTH, 3, 1, 1, bias=False), nn.GroupNorm(8, WIDTH), nn.ReLU()]
        for number in range(3):
            before, after = WIDTH * 2 ** max(0, number - 1), WIDTH * 2**number
            layers += [Block(before, after, 1 if number == 0 else 2), Block(after, after, 1)]
        classes = len(self.folder("train", augment=False).classes)
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * WIDTH, classes))

    def dataset(self) -> Folder:
        """Open what is trained on."""
        return self.folder("train", augment=True)

    def loss(self, model: nn.Module, batch: Sequence[Tensor]) -> Tensor:
        """Give the mean loss over a batch; its gradient is what workers compute."""
        pictures, labels = batch
        return F.cross_entropy(model(pictures), labels)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Make the optimizer; it runs on the server, once per round."""
        return torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Measure a version on `test`; the server does it while workers go on."""
        found = self.folder("test", augment=False)
        device = next(model.parameters()).device
        right = 0
        for start in range(0, len(found), EVALUATION_BATCH):
            samples = [found[index] for index in range(start, min(start + EVALUATION_BATCH, len(found)))]
            pictures, labels = self.collate(samples)
            right += int((model(pictures.to(device)).argmax(1).cpu() == labels).sum())
        return {"accuracy": right / len(found)}
