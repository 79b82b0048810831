from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from paceline.backward import backward_of_sum
from paceline.errors import PacelineError, SettingsError, TaskError
from paceline.flat import FlatModel, build_model
from paceline.gradients import ComputeSettings, TaskRunner
from paceline.loading import build_dataset
from paceline.task_loading import to_device
from tests.jobs import Augmented, DigitsLike, FailsOnSample, NonFiniteOnSample, Tiny


def runner_of(job: Any, **settings: Any) -> tuple[FlatModel, TaskRunner]:
    chosen = ComputeSettings(**{"seed": 1, "micro_batch": 8, **settings})
    flat = build_model(job, 1)
    return flat, TaskRunner(job, flat, build_dataset(job, 1, chosen.micro_batch), chosen)


def sum_of(runner: TaskRunner, tasks: list[int]) -> bytes:
    total = runner.new_sum()
    for task in tasks:
        done = runner.compute(runner.load(task))
        assert done is not None
        runner.accumulate(total, done)
    return bytes(total.host_view)


def test_a_task_gives_the_same_contribution_whatever_ran_before() -> None:
    _, runner = runner_of(Augmented())
    first = sum_of(runner, [5])
    sum_of(runner, [1, 2, 3])
    torch.manual_seed(99)
    assert sum_of(runner, [5]) == first
    assert sum_of(runner, [6]) != first


def test_a_task_starts_from_the_versions_buffers() -> None:
    flat, runner = runner_of(DigitsLike())
    first = sum_of(runner, [0])
    sum_of(runner, [1])
    with torch.no_grad():
        flat.named_views()["1.running_mean"].add_(1.0)
    assert sum_of(runner, [0]) == first, "buffers left by another task do not matter"
    with torch.no_grad():
        flat.named_views()["1.running_mean"].add_(1.0)
    runner.adopt_version()
    assert sum_of(runner, [0]) != first, "those of a new version do"


def test_indexing_tensors_gives_the_batch_that_collating_gives() -> None:
    _, quick = runner_of(DigitsLike())
    job = DigitsLike()
    dataset = [job.dataset()[index] for index in range(job.n_samples)]
    slow = TaskRunner(job, build_model(job, 1), dataset, ComputeSettings(seed=1, micro_batch=8))
    for task in range(3):
        for ours, theirs in zip(quick.load(task).parts[0], slow.load(task).parts[0], strict=True):
            assert torch.equal(ours, theirs)


def test_a_task_without_use_for_a_parameter_counts_it_as_zero() -> None:
    flat, runner = runner_of(Augmented())
    total = runner.new_sum()
    done = runner.compute(runner.load(0))
    assert done is not None
    runner.accumulate(total, done)
    layout = flat.layout.regions[0]
    slot = next(slot for slot in layout.slots if slot.name == "unused")
    start = slot.offset_bytes // 4
    assert (total.segments[0][start : start + 3] == 0).all()
    assert total.segments[0].abs().sum() > 0


def test_sum_and_count_of_the_job_are_taken_as_they_are() -> None:
    _, runner = runner_of(Augmented())
    done = runner.compute(runner.load(0))
    assert done is not None
    labels = runner.load(0).parts[0]["label"]
    assert done.samples == int((labels != 9).sum())


def test_a_mean_is_weighted_by_its_samples() -> None:
    _, runner = runner_of(Tiny())
    batch = runner.load(3)
    done = runner.compute(batch)
    assert done is not None
    mean = F.mse_loss(build_model(Tiny(), 1).module(batch.parts[0][0]), batch.parts[0][1]).item()
    assert done.samples == 8
    assert done.loss_sum == pytest.approx(8 * mean)


@pytest.mark.parametrize("micro_steps", [2, 3, 8])
def test_micro_steps_slice_the_samples_and_sum_to_the_same(micro_steps: int) -> None:
    flat, whole = runner_of(Tiny())
    _, sliced = runner_of(Tiny(), micro_steps=micro_steps)
    batch = sliced.load(2)
    assert sum(batch.sizes) == 8
    assert len(batch.parts) == micro_steps
    assert torch.equal(torch.cat([part[0] for part in batch.parts]), whole.load(2).parts[0][0])
    totals = [whole.new_sum(), sliced.new_sum()]
    for runner, total in zip((whole, sliced), totals, strict=True):
        done = runner.compute(runner.load(2))
        assert done is not None
        assert done.samples == 8
        runner.accumulate(total, done)
    assert torch.allclose(totals[0].segments[0], totals[1].segments[0], rtol=1e-4, atol=1e-6)
    assert flat.layout.regions[0].numel == totals[0].segments[0].numel()


def test_a_task_stops_between_micro_steps() -> None:
    _, runner = runner_of(Tiny(), micro_steps=4)
    answers = iter([False, True])
    assert runner.compute(runner.load(0), lambda: next(answers)) is None
    assert list(answers) == []
    answers = iter([False, False, False])
    assert runner.compute(runner.load(0), lambda: next(answers)) is not None
    assert list(answers) == [], "asked between the four, not before the first"


def test_a_stopped_task_leaves_nothing_behind() -> None:
    _, runner = runner_of(DigitsLike(), micro_steps=4)
    first = sum_of(runner, [0])
    runner.compute(runner.load(7), lambda: True)
    assert sum_of(runner, [0]) == first


def test_a_gradient_is_added_once_and_only_while_it_is_current() -> None:
    _, runner = runner_of(Tiny())
    total = runner.new_sum()
    first = runner.compute(runner.load(0))
    second = runner.compute(runner.load(1))
    assert first is not None
    assert second is not None
    with pytest.raises(PacelineError, match="gradient of task 0 is gone"):
        runner.accumulate(total, first)
    runner.accumulate(total, second)
    with pytest.raises(PacelineError, match="gradient of task 1 is gone"):
        runner.accumulate(total, second)
    assert total.lowest_task == 1


def test_autocast_computes_in_bfloat16_and_keeps_float32_gradients() -> None:
    seen = []

    class Seeing(Tiny):
        def loss(self, model: nn.Module, batch: Any) -> Any:
            seen.append(model(batch[0]).dtype)
            return super().loss(model, batch)

    flat, runner = runner_of(Seeing(), precision="bf16")
    done = runner.compute(runner.load(0))
    assert done is not None
    assert seen == [torch.bfloat16]
    assert math.isfinite(done.loss_sum)
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in flat.module.parameters())


def test_a_loss_that_resets_gradients_does_no_harm() -> None:
    class Resetting(Tiny):
        def loss(self, model: nn.Module, batch: Any) -> Any:
            model.zero_grad()
            return super().loss(model, batch)

    _, plain = runner_of(Tiny())
    _, resetting = runner_of(Resetting())
    assert sum_of(resetting, [0, 1]) == sum_of(plain, [0, 1])


def _first_failure(job: Any) -> TaskError:
    _, runner = runner_of(job)
    try:
        for task in range(8):
            runner.compute(runner.load(task))
    except TaskError as error:
        return error
    pytest.fail("no task failed")


def test_an_exception_in_the_loss_names_the_task_and_shows_the_users_frames() -> None:
    error = _first_failure(FailsOnSample())
    assert error.kind == "exception"
    assert "computing it raised ValueError: sample 5 cannot be read" in str(error)
    assert "in loss" in error.traceback_text
    assert "gradients.py" not in error.traceback_text


def test_a_non_finite_loss_is_named() -> None:
    error = _first_failure(NonFiniteOnSample())
    assert error.kind == "non-finite"
    assert str(error).endswith(": the loss is inf")


class RootOfZero(Tiny):
    """A finite loss with a gradient that is not."""

    def model(self) -> nn.Module:
        return nn.ModuleDict({"good": nn.Linear(99, 10), "bad": nn.Linear(1, 1, bias=False)})

    def loss(self, model: Any, batch: Any) -> Any:
        return super().loss(model["good"], batch) + (model["bad"].weight * 0).sqrt().sum()


def test_a_non_finite_gradient_is_named() -> None:
    error = _first_failure(RootOfZero())
    assert error.kind == "non-finite"
    assert "gradient of bad.weight is not finite" in str(error)


class BadBuffer(Tiny):
    """A buffer that becomes infinite while the loss stays finite."""

    def model(self) -> nn.Module:
        module = super().model()
        module.register_buffer("seen", torch.zeros(1))
        return module

    def loss(self, model: Any, batch: Any) -> Any:
        model.seen += math.inf
        return super().loss(model, batch)


def test_a_non_finite_buffer_is_named() -> None:
    assert "buffer seen is not finite" in str(_first_failure(BadBuffer()))


def test_a_failing_dataset_fails_the_task_while_loading() -> None:
    class Broken(Tiny):
        def dataset(self) -> Any:
            class Samples(list[int]):
                def __getitem__(self, index: Any) -> Any:
                    raise OSError("disk on fire")

            return Samples(range(20))

    error = _first_failure(Broken())
    assert "loading it raised OSError: disk on fire" in str(error)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_running_out_of_memory_has_a_kind_of_its_own(error: Exception) -> None:
    class Hungry(Tiny):
        def loss(self, model: nn.Module, batch: Any) -> Any:
            raise error

    assert _first_failure(Hungry()).kind == "out-of-memory"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: torch.ones(3, requires_grad=True), "a tensor of shape (3,): expected a scalar"),
        (lambda: 0.5, "a float: expected a scalar"),
        (lambda: torch.ones(()), "does not depend on the model's trainable parameters"),
        (lambda: (torch.ones((), requires_grad=True), -1), "with n = -1"),
    ],
)
def test_what_is_no_loss_is_refused(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValueError, match="loss") as caught:
        backward_of_sum(make(), 4)
    assert words in str(caught.value)


def test_batches_move_with_their_containers() -> None:
    batch = {"a": [torch.ones(2), (torch.zeros(1), "text")], "b": 3}
    moved = to_device(batch, torch.device("meta"))
    assert moved["a"][0].device.type == "meta"
    assert moved["a"][1][0].device.type == "meta"
    assert moved["a"][1][1] == "text"
    assert moved["b"] == 3


@pytest.mark.parametrize(("micro_batch", "micro_steps"), [(0, 1), (4, 0), (4, 5)])
def test_impossible_settings_are_refused(micro_batch: int, micro_steps: int) -> None:
    with pytest.raises(SettingsError, match="expected"):
        ComputeSettings(seed=1, micro_batch=micro_batch, micro_steps=micro_steps)


@dataclasses.dataclass(frozen=True)
class Labelled:
    inputs: torch.Tensor
    names: list[str]
    more: dict[str, torch.Tensor]


def test_dataclasses_move_with_what_is_in_them() -> None:
    batch = Labelled(torch.ones(2), ["a"], {"x": torch.zeros(1)})
    moved = to_device(batch, torch.device("meta"))
    assert isinstance(moved, Labelled)
    assert (moved.inputs.device.type, moved.more["x"].device.type, moved.names) == ("meta", "meta", ["a"])
    assert batch.inputs.device.type == "cpu"
