"""Further sums of a job's loss: added over micro-steps, checked, and averaged over a round's samples."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from paceline.errors import TaskError
from paceline.flat import build_model
from paceline.gradients import ComputeSettings, TaskRunner
from paceline.job import Batch
from paceline.loading import build_dataset
from paceline.round_sums import MOST_SUMS, check_sums
from tests.jobs import DigitsLike


class Measured(DigitsLike):
    """Counts what it names right."""

    given: Any = None

    def __init__(self) -> None:
        self.right = 0

    def loss(self, model: nn.Module, batch: Batch) -> Any:
        inputs, labels = batch
        scores = model(inputs)
        right = (scores.argmax(1) == labels).sum()
        self.right += int(right)
        sums = {"accuracy_sum": right, "ones": float(len(labels))} if self.given is None else self.given
        return nn.functional.cross_entropy(scores, labels, reduction="sum"), len(labels), sums


def runner(job: Measured, micro_steps: int = 1) -> TaskRunner:
    settings = ComputeSettings(seed=1, micro_batch=8, micro_steps=micro_steps)
    return TaskRunner(job, build_model(job, 1), build_dataset(job, 1, 8), settings)


@pytest.mark.parametrize("micro_steps", [1, 3])
def test_sums_are_those_of_the_whole_task(micro_steps: int) -> None:
    job = Measured()
    made = runner(job, micro_steps)
    gradient = made.compute(made.load(2))
    assert gradient is not None
    assert gradient.sums == {"accuracy_sum": job.right, "ones": 8.0}
    assert gradient.samples == 8


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (5, r"loss\(\) gave \(sum, n, int\): expected a dict"),
        ({"a b": 1.0}, "a sum called 'a b': expected letters"),
        ({"loss_sum": 1.0}, "a sum called 'loss_sum'"),
        ({"x": 1.0, "x_sum": 2.0}, "gave 'x' twice"),
        ({"x": float("nan")}, "gave x = nan: expected a finite number"),
        ({f"x{number}": 1.0 for number in range(MOST_SUMS + 1)}, "gave 17 sums: expected at most 16"),
        ({"x": "much"}, "could not convert string to float"),
    ],
)
def test_sums_that_cannot_be_shown_fail_the_task_by_name(given: Any, told: str) -> None:
    job = Measured()
    job.given = given
    made = runner(job)
    with pytest.raises(TaskError, match=f"task 0: .*{told}"):
        made.compute(made.load(0))


def test_tensors_and_numbers_are_taken() -> None:
    job = Measured()
    job.given = {"t": torch.tensor(3.0, requires_grad=True), "n": 2}
    made = runner(job)
    gradient = made.compute(made.load(0))
    assert gradient is not None
    assert gradient.sums == {"t": 3.0, "n": 2.0}
    check_sums({})
