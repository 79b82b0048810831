"""A regression on the rows of a table, parquet or CSV, with numbers and names in its columns; needs pandas.

    paceline run examples/table.py:Table --data houses --workers 2 --tasks 8 --micro-batch 64 --rounds 300

The data folder holds train.parquet or train.csv, and test.parquet or test.csv; the last column is what is to be said of
a row. Columns of numbers are scaled to mean 0 and deviation 1, those of names become vectors. What is scaled by what
comes from the training rows, which are the same on all machines.
"""

import functools
from pathlib import Path

import pandas
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from paceline.errors import UsageError
from paceline.job import Job

WIDTH, NAME_WIDTH = 64, 8


def read(folder: Path | None, name: str) -> pandas.DataFrame:
    """Read a table, whichever of the two formats is there.

    Raises:
        UsageError: none is, it cannot be read, has no rows or gaps.
    """
    if folder is None:
        raise UsageError("this job needs --data: the folder with train.parquet or train.csv")
    readers = {folder / f"{name}.parquet": pandas.read_parquet, folder / f"{name}.csv": pandas.read_csv}
    path = next((path for path in readers if path.is_file()), None)
    if path is None:
        raise UsageError(f"{folder} has neither {name}.parquet nor {name}.csv")
    try:
        frame = readers[path](path)
    except Exception as error:
        raise UsageError(f"{path} cannot be read as a table: {error}") from error
    if not len(frame) or len(frame.columns) < 2:
        raise UsageError(
            f"{path} has {len(frame)} rows of {len(frame.columns)} columns: expected a row of two, at least"
        )
    gaps = [str(column) for column in frame.columns if frame[column].isna().any()]
    if gaps:
        raise UsageError(f"{path} has gaps in column {gaps[0]!r}: fill them, or leave such rows out")
    last = str(frame.columns[-1])
    if not pandas.api.types.is_numeric_dtype(frame[last]):
        raise UsageError(f"column {last!r} of {path} is the last, and no number: expected the target there")
    return frame


class Columns:
    """What the training rows say about the columns, and rows as tensors."""

    def __init__(self, frame: pandas.DataFrame) -> None:
        *inputs, self.target = frame.columns
        self.numbers = [column for column in inputs if pandas.api.types.is_numeric_dtype(frame[column])]
        self.names = {
            column: sorted(frame[column].astype(str).unique()) for column in inputs if column not in self.numbers
        }
        scaled = frame[[*self.numbers, self.target]].astype(float)
        self.mean, self.deviation = scaled.mean(), scaled.std(ddof=0).replace(0.0, 1.0)

    def tensors(self, frame: pandas.DataFrame) -> tuple[Tensor, Tensor, Tensor]:
        """Give scaled numbers, shape (rows, numbers), names, shape (rows, names), 0 for new ones, scaled targets."""
        columns = [*self.numbers, self.target]
        scaled = torch.tensor(((frame[columns] - self.mean) / self.deviation).to_numpy(), dtype=torch.float32)
        places = [
            frame[column].astype(str).map({name: place for place, name in enumerate(known, 1)}).fillna(0)
            for column, known in self.names.items()
        ]
        names = torch.tensor([column.astype(int).tolist() for column in places], dtype=torch.int64)
        return scaled[:, :-1], names.T if places else names.reshape(len(frame), 0), scaled[:, -1]


class Network(nn.Module):
    """A vector for each name, all beside the numbers, and two layers."""

    def __init__(self, columns: Columns) -> None:
        super().__init__()
        self.vectors = nn.ModuleList(nn.Embedding(len(known) + 1, NAME_WIDTH) for known in columns.names.values())
        width = len(columns.numbers) + NAME_WIDTH * len(columns.names)
        self.layers = nn.Sequential(
            nn.Linear(width, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1)
        )

    def forward(self, numbers: Tensor, names: Tensor) -> Tensor:
        """Give the scaled target of each row, shape (rows,)."""
        vectors = [vector(names[:, place]) for place, vector in enumerate(self.vectors)]
        said: Tensor = self.layers(torch.cat([numbers, *vectors], dim=1)).squeeze(1)
        return said


class Table(Job):
    """Says the last column of a row."""

    @functools.cached_property
    def train(self) -> pandas.DataFrame:
        """The training rows."""
        return read(self.data, "train")

    @functools.cached_property
    def columns(self) -> Columns:
        """What they say about the columns."""
        return Columns(self.train)

    def model(self) -> nn.Module:
        """See Job."""
        return Network(self.columns)

    def dataset(self) -> TensorDataset:
        """See Job."""
        return TensorDataset(*self.columns.tensors(self.train))

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Compute the mean squared error of the scaled target."""
        numbers, names, targets = batch
        return F.mse_loss(model(numbers, names), targets)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """See Job."""
        return torch.optim.Adam(model.parameters(), lr=3e-3)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Measure the error in the target's own unit, and the share of its variance that is explained."""
        numbers, names, targets = self.columns.tensors(read(self.data, "test"))
        error = F.mse_loss(model(numbers, names), targets).item()
        deviation = float(self.columns.deviation[self.columns.target])
        return {"rmse": error**0.5 * deviation, "r2": 1.0 - error / targets.var(correction=0).item()}
