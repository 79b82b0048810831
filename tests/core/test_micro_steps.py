"""Tasks that do not fit into memory are cut into more slices, where the settings leave it to the worker."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from paceline.errors import TaskError
from paceline.flat import build_model
from paceline.gradients import ComputeSettings, TaskRunner
from paceline.job import Batch, Job
from paceline.loading import build_dataset
from paceline.settings import SharedSettings
from paceline.tasks import VALIDATION
from tests.jobs import Tiny


class Narrow(Tiny):
    """Fits so many samples into memory at once, after the backward of a first part."""

    fits = 3

    def loss(self, model: nn.Module, batch: Batch) -> Any:
        if len(batch[0]) > self.fits:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return super().loss(model, batch)


def runner(job: Tiny, micro_steps: Any = "auto", micro_batch: int = 16) -> TaskRunner:
    settings = ComputeSettings(seed=1, micro_batch=micro_batch, micro_steps=micro_steps)
    return TaskRunner(job, build_model(job, 1), build_dataset(job, 1, micro_batch), settings)


def test_a_task_is_cut_until_it_fits_and_the_next_ones_are_cut_at_once() -> None:
    narrow, plain = runner(Narrow()), runner(Tiny(), 8)
    for task in (4, 5):
        batch = narrow.load(task)
        gradient, expected = narrow.compute_as_it_fits(batch), plain.compute(plain.load(task))
        assert gradient is not None
        assert expected is not None
        assert (gradient.micro_steps, gradient.samples) == (8, 16)
        assert gradient.loss_sum == expected.loss_sum
        assert all(torch.equal(a, b) for a, b in zip(narrow._gradients, plain._gradients, strict=True))
    assert len(narrow.load(6).parts) == 8


def test_what_does_not_fit_in_slices_of_one_sample_fails_by_name() -> None:
    job = Narrow()
    job.fits = 0
    made = runner(job)
    with pytest.raises(TaskError, match="task 2: computing it raised OutOfMemoryError") as caught:
        made.compute_as_it_fits(made.load(2))
    assert (caught.value.kind, made.micro_steps) == ("out-of-memory", 16)


def test_a_number_that_was_given_is_kept() -> None:
    made = runner(Narrow(), 2)
    with pytest.raises(TaskError):
        made.compute_as_it_fits(made.load(2))
    assert (made.micro_steps, made.splits) == (2, False)


def test_another_error_is_no_reason_to_cut() -> None:
    class Broken(Tiny):
        def loss(self, model: nn.Module, batch: Batch) -> Any:
            raise ValueError("no")

    made = runner(Broken())
    with pytest.raises(TaskError, match="ValueError: no"):
        made.compute_as_it_fits(made.load(2))
    assert made.micro_steps == 1


def test_exact_sums_need_a_number() -> None:
    with pytest.raises(ValidationError, match=r"micro-steps is 'auto' with exact sums: .* expected a number, 1 to 32"):
        SharedSettings(micro_steps="auto", sums="exact")
    with pytest.raises(ValidationError, match="micro-steps is 40: expected 1 to 32"):
        SharedSettings(micro_steps=40)


class NarrowValidated(Narrow):
    """Measures no more at once than it trains on."""

    evaluate = Job.evaluate

    def validation(self) -> Any:
        return self.dataset()

    def validate(self, model: nn.Module, batch: Batch) -> Any:
        return {"loss_sum": len(batch[0]) * self.loss(model, batch).double()}


@pytest.mark.parametrize(("micro_steps", "cut"), [("auto", True), (2, False)])
def test_a_validation_task_is_cut_as_well(micro_steps: Any, cut: bool) -> None:
    job = NarrowValidated()
    settings = ComputeSettings(seed=1, micro_batch=16, micro_steps=micro_steps)
    dataset = build_dataset(job, 1, 16)
    made = TaskRunner(job, build_model(job, 1), dataset, settings, dataset)
    batch = made.load(VALIDATION)
    if not cut:
        with pytest.raises(TaskError, match="OutOfMemoryError"):
            made.validate(batch)
        return
    measured = made.validate(batch)
    assert (measured.samples, made.micro_steps) == (16, 8)
    job.fits = 99
    expected = TaskRunner(job, build_model(job, 1), dataset, settings, dataset).validate(batch)
    assert measured.sums["loss_sum"] == pytest.approx(expected.sums["loss_sum"], rel=1e-6)
