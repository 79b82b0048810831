"""MNIST is read from idx files, plain or gzipped, and what is wrong with a folder is said in one line."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from examples.mnist import Mnist
from paceline.errors import UsageError
from tests.examples.training import evaluate, train

REAL_MNIST = Path(__file__).resolve().parents[3] / "shared/data/mnist"
TRAIN_IMAGES = "train-images-idx3-ubyte"


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    content = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_side(folder: Path, side: str, ending: str, samples: int) -> None:
    """Write images whose label is the row of the bright bar in them: learnt in a few rounds."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, samples)
    images = rng.integers(0, 60, (samples, 28, 28))
    for image, label in zip(images, labels, strict=True):
        image[2 * label + 4 : 2 * label + 6] = 255
    write_idx(folder / f"{side}-images-idx3-ubyte{ending}", images)
    write_idx(folder / f"{side}-labels-idx1-ubyte{ending}", labels)


@pytest.fixture
def job(tmp_path: Path) -> Mnist:
    """A job over 300 training images, gzipped, and 100 test images, plain."""
    write_side(tmp_path, "train", ".gz", 300)
    write_side(tmp_path, "t10k", "", 100)
    job = Mnist()
    job.data = tmp_path
    return job


def test_batches_are_scaled_floats(job: Mnist) -> None:
    dataset = job.dataset()
    images, labels = job.collate([dataset[i] for i in range(4)])
    assert images.shape == (4, 1, 28, 28)
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert float(images.max()) == pytest.approx((1.0 - 0.1307) / 0.3081)


def test_mnist_learns_the_files_of_the_folder(job: Mnist) -> None:
    assert evaluate(job, train(job, rounds=30, batch=64))["accuracy"] > 0.95


@pytest.mark.skipif(not REAL_MNIST.is_dir(), reason="the real MNIST is not beside the checkout")
def test_mnist_learns_real_digits() -> None:
    job = Mnist()
    job.data = REAL_MNIST
    assert len(job.dataset()) == 60_000
    assert evaluate(job, train(job, rounds=60, batch=64))["accuracy"] > 0.85


def test_no_data_folder_is_said() -> None:
    with pytest.raises(UsageError, match="needs --data FOLDER"):
        Mnist().dataset()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    job = Mnist()
    job.data = tmp_path / "nowhere"
    with pytest.raises(UsageError, match="nowhere is not a folder"):
        job.dataset()


def test_a_missing_file_is_named(job: Mnist) -> None:
    assert job.data is not None
    (job.data / f"{TRAIN_IMAGES}.gz").unlink()
    with pytest.raises(UsageError, match=f"no file {TRAIN_IMAGES} or {TRAIN_IMAGES}.gz in the data folder"):
        job.dataset()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is not an idx file of bytes with 3 dimensions"),
        (b"\x89PNG and so on", "it begins 89504e47"),
        (
            bytes([0, 0, 8, 3]) + struct.pack(">3I", 300, 28, 28) + b"\0" * 99,
            "holds 99 items, but its header says 235200",
        ),
        (bytes([0, 0, 8, 3]) + struct.pack(">3I", 300, 2, 2) + b"\0" * 1200, r"are \(2, 2\) pixels"),
        (bytes([0, 0, 8, 3]) + struct.pack(">3I", 1, 28, 28) + b"\0" * 784, "has 1 train images, but 300 labels"),
    ],
)
def test_a_bad_file_is_named(job: Mnist, content: bytes, complaint: str) -> None:
    assert job.data is not None
    (job.data / TRAIN_IMAGES).write_bytes(content)
    with pytest.raises(UsageError, match=complaint) as caught:
        job.dataset()
    assert "\n" not in str(caught.value)


def test_a_torn_gzip_file_is_named(job: Mnist) -> None:
    assert job.data is not None
    path = job.data / f"{TRAIN_IMAGES}.gz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UsageError, match="is not a whole gzip file"):
        job.dataset()
