"""A ResNet-18 on a folder of pictures, one folder for each class: any image files that Pillow reads.

    pictures/train/cat/1.png  pictures/train/dog/7.jpg ...   and, to be measured on, pictures/test/cat/...

    paceline run examples/image_folder.py:Pictures --data pictures --workers 4 --tasks 16 --micro-batch 32 --epochs 10

Or with the same pictures in tar files, which may lie anywhere; each worker copies the few that it needs:

    python examples/image_folder.py pictures shards --each 1000 --at https://data.example/shards
    paceline run examples/image_folder.py:PictureShards --data shards --workers 4 --tasks 16 --epochs 10

The first makes `shards/train-000.tar` and so on, to be put where --at says, and the index, the names of the classes and
the test pictures, which the server and all workers have in their --data folder. Without --at the shards stay there too.
"""

import argparse
import io
import json
import random
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, UnidentifiedImageError
from torch import Tensor, nn
from torch.utils.data import Dataset

from paceline.errors import UsageError
from paceline.job import Job
from paceline.streams import Shards, TarSamples, read_index, write_index

SIDE = 32  # pictures are brought to this size
SHIFT = 4  # and moved by so many pixels at most, when they are trained on
MEAN, SD = 0.45, 0.25
EVALUATION_BATCH = 256


class Folder(Dataset[tuple[Tensor, int]]):
    """The pictures of one folder per class, in the order of their paths, so that all machines agree on it.

    Args:
        root: the folder of the class folders.
        augment: shift and mirror at random.

    Raises:
        UsageError: there is no class folder, or one is empty.
    """

    def __init__(self, root: Path, *, augment: bool) -> None:
        classes = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
        if not classes:
            raise UsageError(f"{root} has no class folders: expected one folder of pictures for each class")
        self.classes = [path.name for path in classes]
        self.files: list[tuple[Path, int]] = []
        for label, folder in enumerate(classes):
            found = sorted(path for path in folder.iterdir() if path.is_file())
            if not found:
                raise UsageError(f"{folder} is empty: expected pictures of the class {folder.name!r}")
            self.files += [(path, label) for path in found]
        self._augment = augment

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self.files[index]
        picture = as_tensor(path, str(path))
        return moved(picture) if self._augment else picture, label


def as_tensor(file: Path | BinaryIO, name: str) -> Tensor:
    """Read a picture, shape (3, SIDE, SIDE), of about mean 0 and variance 1.

    Raises:
        ValueError: it is none.
    """
    try:
        with Image.open(file) as image:
            pixels = np.array(image.convert("RGB").resize((SIDE, SIDE)), dtype=np.float32)
    except (OSError, UnidentifiedImageError) as error:
        raise ValueError(f"{name} cannot be read as a picture: {error}") from error
    return (torch.from_numpy(pixels).permute(2, 0, 1) / 255.0 - MEAN) / SD


def moved(picture: Tensor) -> Tensor:
    """Shift and mirror a picture. torch's generator is seeded by the task: no matter which process does it."""
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


def resnet18(classes: int, width: int = 64) -> nn.Sequential:
    """Build a ResNet-18 for small pictures (11 million parameters at width 64), with norms that no task shares.

    Group norm instead of batch norm: a batch's statistics would be those of one task.
    """
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.GroupNorm(8, width), nn.ReLU()]
    before = width
    for number in range(4):
        after = width * 2**number
        layers += [Block(before, after, 1 if number == 0 else 2), Block(after, after, 1)]
        before = after
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes))


class Pictures(Job):
    """Tells the classes apart."""

    width = 64

    def folder(self, name: str, *, augment: bool) -> Folder:
        """Open `train` or `test`."""
        if self.data is None:
            raise UsageError("this job needs --data: the folder with the folders train and test")
        return Folder(self.data / name, augment=augment)

    def model(self) -> nn.Module:
        """See Job."""
        return resnet18(len(self.folder("train", augment=False).classes), self.width)

    def dataset(self) -> Folder:
        """See Job."""
        return self.folder("train", augment=True)

    def loss(self, model: nn.Module, batch: Sequence[Tensor]) -> Tensor:
        """See Job."""
        pictures, labels = batch
        return F.cross_entropy(model(pictures), labels)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """See Job."""
        return torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4, nesterov=True)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Count what it names right in `test`."""
        found = self.folder("test", augment=False)
        right = 0
        for start in range(0, len(found), EVALUATION_BATCH):
            samples = [found[index] for index in range(start, min(start + EVALUATION_BATCH, len(found)))]
            pictures, labels = self.collate(samples)
            right += int((model(pictures).argmax(1) == labels).sum())
        return {"accuracy": right / len(found)}


class SmallPictures(Pictures):
    """The same, 1/64 of the size: for a first try without a GPU."""

    width = 8


class PictureShards(SmallPictures):
    """Tells the classes apart; goes through four shards at a time."""

    def classes(self) -> list[str]:
        """Read the names of the classes."""
        if self.data is None:
            raise UsageError("this job needs --data: the folder with index.json and classes.json")
        names: list[str] = json.loads((self.data / "classes.json").read_text(encoding="utf-8"))
        return names

    def model(self) -> nn.Module:
        """See Job."""
        return resnet18(len(self.classes()), self.width)

    def dataset(self) -> Any:
        """Give the shards: the parent's folder is not there."""
        return self.shards()

    def shards(self) -> Shards:
        """See Job."""
        assert self.data is not None
        return Shards(read_index(self.data / "index.json"), TarSamples, mixed=4, decode=self.decode)

    def decode(self, sample: dict[str, Any]) -> tuple[Tensor, int]:
        """Make a tensor, shifted and mirrored, of what lies in a shard."""
        return moved(as_tensor(io.BytesIO(sample["picture"]), sample["__key__"])), int(sample["label"])


def pack(pictures: Path, target: Path, each: int, base: str) -> int:
    """Put the training pictures of a folder into shards, shuffled once; gives the number of shards."""
    folder = Folder(pictures / "train", augment=False)
    target.mkdir(parents=True, exist_ok=True)
    files = random.Random(0).sample(folder.files, len(folder.files))
    paths = []
    for start in range(0, len(files), each):
        paths.append(target / f"train-{start // each:03}.tar")
        write_shard(paths[-1], files[start : start + each])
    (target / "classes.json").write_text(json.dumps(folder.classes), encoding="utf-8")
    shutil.copytree(pictures / "test", target / "test", dirs_exist_ok=True)
    return len(write_index(target / "index.json", paths, TarSamples, base))


def write_shard(path: Path, files: Sequence[tuple[Path, int]]) -> None:
    """Write pictures and labels as WebDataset has them: neighbours of one name."""
    with tarfile.open(path, "w") as archive:
        for number, (picture, label) in enumerate(files):
            for extension, content in (("picture", picture.read_bytes()), ("label", str(label).encode())):
                member = tarfile.TarInfo(f"{number:06}.{extension}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Put a folder of pictures into shards.")
    parser.add_argument("pictures", type=Path, help="folder with the folders train and test")
    parser.add_argument("target", type=Path, help="folder for shards and index")
    parser.add_argument("--each", type=int, default=1000, help="pictures in a shard")
    parser.add_argument("--at", default="", help="the url that the shards will have")
    asked = parser.parse_args()
    try:
        print(f"{pack(asked.pictures, asked.target, asked.each, asked.at)} shards in {asked.target}")
    except UsageError as error:
        parser.error(str(error))
