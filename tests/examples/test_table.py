"""A table of numbers and names is learnt, from parquet and CSV alike; what is wrong with it is said in one line."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from paceline.errors import UsageError
from tests.examples.training import evaluate, train

pandas = pytest.importorskip("pandas")

from examples.table import Table, read  # noqa: E402  # it needs pandas

# pandas comes with the extras.
pytestmark = pytest.mark.slow


def rows(count: int, seed: int) -> Any:
    chance = np.random.default_rng(seed)
    size, city = chance.uniform(20, 200, count), chance.choice(["Ulm", "Bonn", "Kiel"], count)
    floor = chance.integers(0, 5, count)
    price = 1000 * size + 5000 * floor + np.where(city == "Ulm", 90_000, 0) + chance.normal(0, 2000, count)
    return pandas.DataFrame({"size": size, "city": city, "floor": floor, "price": price})


def job(folder: Path, kind: str = "csv") -> Table:
    for name, count, seed in (("train", 600, 1), ("test", 100, 2)):
        frame = rows(count, seed)
        if kind == "csv":
            frame.to_csv(folder / f"{name}.csv", index=False)
        else:
            frame.to_parquet(folder / f"{name}.parquet")
    made = Table()
    made.data = folder
    return made


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_it_learns(tmp_path: Path, kind: str) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    made = job(tmp_path, kind)
    found = evaluate(made, train(made, rounds=150, batch=64))
    assert found["r2"] > 0.97
    assert found["rmse"] < 12_000


def test_names_and_numbers_are_told_apart_and_a_new_name_is_nobody(tmp_path: Path) -> None:
    made = job(tmp_path)
    assert (made.columns.numbers, list(made.columns.names)) == (["size", "floor"], ["city"])
    frame = rows(3, 3)
    frame["city"] = ["Bonn", "Ulm", "Rom"]
    numbers, names, targets = made.columns.tensors(frame)
    assert names.tolist() == [[1], [3], [0]]
    assert (numbers.shape, targets.shape) == ((3, 2), (3,))


def test_a_table_of_numbers_alone_has_no_names(tmp_path: Path) -> None:
    made = job(tmp_path)
    made.train = rows(50, 4)[["size", "price"]]
    numbers, names, _ = made.columns.tensors(made.train)
    assert names.shape == (50, 0)
    assert made.model()(numbers, names).shape == (50,)
    assert torch.isfinite(made.loss(made.model(), made.columns.tensors(made.train)))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "has neither train.parquet nor train.csv"),
        ("", "cannot be read as a table"),
        ("a,b\n", "has 0 rows of 2 columns"),
        ("a,b\n1,\n2,3\n", "has gaps in column 'b'"),
        ("a,b\n1,x\n", "column 'b' of .* is the last, and no number"),
    ],
)
def test_a_table_that_is_none_is_named(tmp_path: Path, text: str | None, told: str) -> None:
    if text is not None:
        (tmp_path / "train.csv").write_text(text)
    with pytest.raises(UsageError, match=told):
        read(tmp_path, "train")
