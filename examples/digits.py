"""Handwritten digits, 8x8 pixels: the demo's job. Nothing is downloaded; scikit-learn brings the 1,797 images.

paceline run examples/digits.py:Digits --workers 4 --tasks 23 --micro-batch 32 --rounds 100 --seed 1
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from paceline.errors import UsageError
from paceline.job import Job

TEST_SAMPLES = 360
# The split belongs to the job and not to the run: accuracies of runs with other seeds stay comparable.
SPLIT_SEED = 0


def digits(train: bool) -> tuple[Tensor, Tensor]:
    """Read one side of the split.

    Returns:
        images, shape (n, 1, 8, 8), float32 in 0..1, and labels, shape (n,), int64.
    Raises:
        UsageError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise UsageError("examples/digits.py needs scikit-learn: pip install 'paceline[examples]'") from error
    images, labels = load_digits(return_X_y=True)
    order = np.random.RandomState(SPLIT_SEED).permutation(len(labels))
    chosen = order[TEST_SAMPLES:] if train else order[:TEST_SAMPLES]
    pixels = torch.from_numpy(images[chosen] / 16.0).float().reshape(-1, 1, 8, 8)
    return pixels, torch.from_numpy(labels[chosen]).long()


class Digits(Job):
    """A small CNN with BatchNorm and dropout; 97 % of the test images after about 35 rounds of 23 tasks."""

    def model(self) -> nn.Module:
        """Build the CNN: 47,610 parameters."""
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.25),
            nn.Linear(32 * 4 * 4, 64),
            nn.ReLU(),
            nn.Linear(64, 10),
        )

    def dataset(self) -> TensorDataset:
        """Give the 1,437 training images."""
        return TensorDataset(*digits(train=True))

    def loss(self, model: nn.Module, batch: list[Tensor]) -> Tensor:
        """Compute the mean cross-entropy."""
        images, labels = batch
        return F.cross_entropy(model(images), labels)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """SGD with momentum."""
        return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Measure the accuracy on the 360 test images."""
        images, labels = digits(train=False)
        device = next(model.parameters()).device
        right = model(images.to(device)).argmax(dim=1).cpu() == labels
        return {"accuracy": right.float().mean().item()}


class DigitsPlain(Digits):
    """The same with SGD without momentum, for policies that make an update of every result.

    Results of older versions act like momentum themselves (Mitliagkas et al., 2016, "Asynchrony begets momentum"); with
    more of it on top such a run does not settle.
    """

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Plain SGD."""
        return torch.optim.SGD(model.parameters(), lr=0.05)
