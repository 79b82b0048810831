"""A folder of pictures is read, augmented and learnt; what is wrong with it is said in one line."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from examples.image_folder import Folder, Pictures, SmallPictures
from paceline.errors import TaskError, UsageError
from paceline.loading import build_dataset
from paceline.task_loading import TaskLoader
from tests.examples.training import evaluate, train


def write_pictures(folder: Path, each: int, seed: int) -> None:
    """Write pictures of two classes: bright above, or bright to the left."""
    rng = np.random.default_rng(seed)
    for name, bright in (("above", np.s_[:16, :]), ("left", np.s_[:, :16])):
        (folder / name).mkdir(parents=True)
        for number in range(each):
            pixels = rng.integers(0, 120, (32, 32, 3), dtype=np.uint8)
            pixels[bright] += 120
            Image.fromarray(pixels).save(folder / name / f"{number:03}.png")


@pytest.fixture
def job(tmp_path: Path) -> SmallPictures:
    write_pictures(tmp_path / "train", 40, 0)
    write_pictures(tmp_path / "test", 10, 1)
    job = SmallPictures()
    job.data = tmp_path
    return job


def test_it_learns(job: SmallPictures) -> None:
    model = train(job, rounds=40, batch=16)
    assert evaluate(job, model)["accuracy"] > 0.9


def test_the_model_has_the_size_of_a_resnet_18(job: SmallPictures) -> None:
    big = Pictures()
    big.data = job.data
    assert 11.1e6 < sum(parameter.numel() for parameter in big.model().parameters()) < 11.3e6


def test_a_picture_is_changed_by_chance_and_the_task_decides_how(job: SmallPictures) -> None:
    loader = TaskLoader(job, build_dataset(job, 0, 8), 0, 8)
    first, again, other = (loader.load(task).parts[0][0] for task in (0, 0, 10))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda root: None, "has no class folders"),
        (lambda root: (root / "train").mkdir(), "has no class folders"),
        (lambda root: (root / "train" / "cat").mkdir(parents=True), "cat is empty"),
    ],
)
def test_a_folder_without_pictures_is_told_of(tmp_path: Path, spoil: object, told: str) -> None:
    assert callable(spoil)
    spoil(tmp_path)
    job = Pictures()
    job.data = tmp_path
    with pytest.raises(UsageError, match=told):
        build_dataset(job, 0, 4)


def test_a_file_that_is_no_picture_fails_its_task_by_name(job: SmallPictures) -> None:
    assert job.data is not None
    for path, _ in Folder(job.data / "train", augment=False).files:
        path.write_text("no picture")
    with pytest.raises(TaskError, match=r"task 3: .*\.png cannot be read as a picture"):
        TaskLoader(job, build_dataset(job, 0, 4), 0, 4).load(3)
