"""Predicts one column of data/rows.csv from the others.

paceline run {{job}}
"""

import csv
import functools
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from paceline.errors import UsageError
from paceline.job import Job

FILE = "rows.csv"
TARGET = "rent"  # the column that is predicted
HELD_OUT_EVERY = 10  # each tenth row is evaluated on

Sums = dict[str, Tensor]


def column(name: str, cells: list[str]) -> NDArray[np.float32]:
    """Make numbers of a column: scaled if they are numbers, else one column of 0 and 1 for each word.

    Returns:
        shape (rows, 1) or (rows, words).
    """
    if not all(cells):
        raise UsageError(
            f"column {name!r} has an empty cell in row {cells.index('') + 2}: fill it, or leave the row out"
        )
    try:
        numbers = np.array(cells, dtype=np.float64)
    except ValueError:
        words = sorted(set(cells))
        return np.array([[cell == word for word in words] for cell in cells], dtype=np.float32)
    scaled: NDArray[np.float64] = (numbers - numbers.mean()) / (numbers.std() or 1.0)
    return scaled.astype(np.float32)[:, None]


@functools.cache
def read(path: Path) -> tuple[Tensor, Tensor]:
    """Read the table: inputs, shape (rows, columns), and the target, shape (rows,).

    With pandas this would be `pandas.read_csv(path)`, `pandas.get_dummies` and `torch.from_numpy`.
    """
    if not path.is_file():
        # A UsageError is shown as one line, without a traceback.
        raise UsageError(
            f"{path} does not exist: put your table there, with the names of the columns in its first line"
        )
    with path.open(newline="", encoding="utf-8") as file:
        names, *rows = [row for row in csv.reader(file) if row] or [[]]
    if TARGET not in names or len(rows) < 2 * HELD_OUT_EVERY:
        raise UsageError(f"{path} has {len(rows)} rows of {', '.join(names)}: expected rows with a {TARGET}")
    short = next((number for number, row in enumerate(rows) if len(row) != len(names)), None)
    if short is not None:
        raise UsageError(f"{path} has {len(rows[short])} cells in row {short + 2}: expected {len(names)}")
    cells = {name: [row[place] for row in rows] for place, name in enumerate(names)}
    try:
        target = np.array(cells.pop(TARGET), dtype=np.float32)
    except ValueError as error:
        raise UsageError(f"column {TARGET!r} of {path} has something else than numbers: {error}") from error
    inputs = np.concatenate([column(name, values) for name, values in cells.items()], axis=1)
    return torch.from_numpy(inputs), torch.from_numpy(target)


class Network(nn.Module):
    """Three layers. Where the target lies goes with the model, as buffers: so it predicts in the target's own units."""

    centre: Tensor
    scale: Tensor

    def __init__(self, columns: int, target: Tensor) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(columns, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
        self.register_buffer("centre", target.mean())
        self.register_buffer("scale", target.std())

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs, shape (rows, columns), to predictions, shape (rows,)."""
        prediction: Tensor = self.layers(inputs).squeeze(1)
        return prediction * self.scale + self.centre


class Table(Job):
    """Regression; the loss is the squared error, in units of the target's deviation."""

    def rows(self, *, held_out: bool) -> tuple[Tensor, Tensor]:
        """Give the rows that are trained on, or the others; each machine has its own copy of the file."""
        if self.data is None:
            raise UsageError(f"this job needs --data: the folder with {FILE}")
        inputs, target = read(self.data / FILE)
        chosen = (torch.arange(len(target)) % HELD_OUT_EVERY == 0) == held_out
        return inputs[chosen], target[chosen]

    def model(self) -> nn.Module:
        """Build the model; the weights are drawn under the run's seed."""
        inputs, target = self.rows(held_out=False)
        return Network(inputs.shape[1], target)

    def dataset(self) -> TensorDataset:
        """Give what is trained on."""
        return TensorDataset(*self.rows(held_out=False))

    def loss(self, model: nn.Module, batch: list[Tensor]) -> tuple[Tensor, int, Sums]:
        """Give the sum of the losses, the number of rows, and a further sum, whose mean is shown with each round."""
        inputs, target = batch
        assert isinstance(model, Network)
        error = (model(inputs) - target) / model.scale
        return error.square().sum(), len(target), {"mae_sum": error.abs().sum()}

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Make the optimizer; it runs on the server, once per round."""
        return torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Measure a version on the rows that were held out; the server does it while workers go on."""
        device = next(model.parameters()).device
        inputs, target = (part.to(device) for part in self.rows(held_out=True))
        error = model(inputs) - target
        explained = 1.0 - error.square().sum() / (target - target.mean()).square().sum()
        return {"rmse": float(error.square().mean().sqrt()), "r2": float(explained)}
