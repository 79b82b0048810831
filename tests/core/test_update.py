from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn

from paceline.contribution import ContributionBuffer
from paceline.errors import JobImportError, RunFailedError, UsageError
from paceline.flat import FlatModel, build_model
from paceline.layout import contribution_layout
from paceline.server.rehearsal import rehearse
from paceline.update import Updater, divide_in_place
from tests.jobs import Augmented, DigitsLike, Tiny


class Plain(Tiny):
    """SGD without momentum, rate 1: an update shows its gradient."""

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=1.0)


def total_of(flat: FlatModel, number: float, sums: Any = "exact") -> ContributionBuffer:
    total = ContributionBuffer(contribution_layout(flat.layout, sums))
    for segment in total.segments:
        segment.fill_(number)
    total.lowest_task = 0
    return total


@pytest.mark.parametrize("sums", ["fast", "exact"])
def test_the_divided_sum_is_the_gradient(sums: Any) -> None:
    flat = build_model(Plain(), 1)
    before = flat.named_views()["weight"].clone()
    Updater(Plain(), flat).apply(total_of(flat, 6.0, sums), divisor=4, samples=4, loss=0.0)
    assert torch.equal(flat.named_views()["weight"], before - 1.5)


def test_buffers_are_averaged_by_samples_whatever_divides_the_gradient() -> None:
    flat = build_model(DigitsLike(), 1)
    Updater(DigitsLike(), flat).apply(total_of(flat, 6.0), divisor=3, samples=2, loss=0.0)
    views = flat.named_views()
    assert (views["1.running_mean"] == 3.0).all()
    assert views["1.num_batches_tracked"] == 6


def test_gradients_do_not_outlive_the_update() -> None:
    flat = build_model(DigitsLike(), 1)
    Updater(DigitsLike(), flat).apply(total_of(flat, 1.0), divisor=1, samples=1, loss=0.0)
    assert all(parameter.grad is None for parameter in flat.module.parameters())


def test_before_step_sees_averaged_gradients() -> None:
    seen = []

    class Seeing(Plain):
        def before_step(self, model: nn.Module) -> None:
            seen.append(next(model.parameters()).grad.mean().item())  # type: ignore[union-attr]

    flat = build_model(Seeing(), 1)
    Updater(Seeing(), flat).apply(total_of(flat, 8.0), divisor=4, samples=4, loss=0.0)
    assert seen == [2.0]


def test_a_scheduler_is_stepped_once_per_round() -> None:
    flat = build_model(Augmented(), 1)
    updater = Updater(Augmented(), flat)
    rates = []
    for _ in range(3):
        updater.apply(total_of(flat, 1.0), divisor=1, samples=1, loss=0.0)
        rates.append(updater.optimizer.param_groups[0]["lr"])
    expected = [1e-3 * (1 + math.cos(math.pi * k / 40)) / 2 for k in (1, 2, 3)]
    assert rates == pytest.approx(expected)


def test_a_plateau_scheduler_sees_the_loss() -> None:
    class Plateau(Plain):
        def scheduler(self, optimizer: torch.optim.Optimizer) -> Any:
            return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)

    flat = build_model(Plateau(), 1)
    updater = Updater(Plateau(), flat)
    rates = []
    for loss in (3.0, 2.0, 2.5):
        updater.apply(total_of(flat, 1.0), divisor=1, samples=1, loss=loss)
        rates.append(updater.optimizer.param_groups[0]["lr"])
    assert rates == [1.0, 1.0, 0.5]


def test_a_scheduler_that_is_none_of_torchs_is_refused() -> None:
    class Odd(Plain):
        def scheduler(self, optimizer: torch.optim.Optimizer) -> Any:
            return "cosine"

    with pytest.raises(UsageError, match=r"scheduler\(\) gave 'cosine'"):
        Updater(Odd(), build_model(Odd(), 1))


@pytest.mark.parametrize(("divisor", "samples"), [(0, 1), (1, 0), (-1, 1)])
def test_a_round_without_samples_cannot_be_averaged(divisor: float, samples: int) -> None:
    flat = build_model(Plain(), 1)
    before = flat.fingerprint()
    with pytest.raises(RunFailedError, match="expected both positive"):
        Updater(Plain(), flat).apply(total_of(flat, 1.0), divisor, samples, 0.0)
    assert flat.fingerprint() == before


def test_what_before_step_raises_ends_the_run_in_words() -> None:
    class Clumsy(Plain):
        def before_step(self, model: nn.Module) -> None:
            raise ZeroDivisionError("no norm")

    flat = build_model(Clumsy(), 1)
    updater = Updater(Clumsy(), flat)
    with pytest.raises(RunFailedError, match="raised ZeroDivisionError: no norm") as caught:
        updater.apply(total_of(flat, 1.0), 1, 1, 0.0)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


class Fat(torch.optim.SGD):
    """Keeps more than any machine has."""

    def step(self, closure: Any = None) -> Any:
        self.state[self.param_groups[0]["params"][0]]["everything"] = torch.empty(1 << 50)


class Fattened(Plain):
    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return Fat(model.parameters(), lr=0.1)


def test_an_optimizer_whose_state_does_not_fit_is_told_with_what_to_do() -> None:
    flat = build_model(Fattened(), 1)
    with pytest.raises(RunFailedError, match=r"ran out of memory on the server \(cpu\): .* Fat keeps its state beside"):
        Updater(Fattened(), flat).apply(total_of(flat, 1.0), 1, 1, 0.0)


def test_that_is_found_before_the_run_begins_where_a_checkpoint_is_rehearsed() -> None:
    with pytest.raises(UsageError, match="expected more memory, another --device, or an optimizer that keeps less"):
        rehearse(Fattened(), build_model(Fattened(), 1))


def test_a_scheduler_that_raises_while_it_is_made_is_the_jobs_fault() -> None:
    class Clumsy(Plain):
        def scheduler(self, optimizer: torch.optim.Optimizer) -> Any:
            raise KeyError("steps")

    with pytest.raises(JobImportError, match=r"scheduler\(\) of the job raised KeyError"):
        Updater(Clumsy(), build_model(Clumsy(), 1))


def test_a_saved_state_goes_on_as_if_never_stopped() -> None:
    whole = build_model(Augmented(), 1)
    steady = Updater(Augmented(), whole)
    for number in (1.0, 2.0):
        steady.apply(total_of(whole, number), 1, 1, 0.0)
    saved = copy.deepcopy(steady.state_dict())
    resumed = build_model(Augmented(), 5)
    resumed.copy_from(whole)
    other = Updater(Augmented(), resumed)
    other.load_state_dict(saved)
    for flat, updater in ((whole, steady), (resumed, other)):
        updater.apply(total_of(flat, 3.0), 1, 1, 0.0)
    assert whole.fingerprint() == resumed.fingerprint()


@pytest.mark.parametrize("numel", [1, 1000, (1 << 17) - 1, (1 << 17) + 5, 3 << 17])
@pytest.mark.parametrize(("wide", "narrow"), [("float64", "float32"), ("float32", "bfloat16"), ("float64", "float16")])
def test_narrowing_in_place_loses_nothing_but_digits(numel: int, wide: str, narrow: str) -> None:
    numbers = torch.randn(numel, dtype=getattr(torch, wide), generator=torch.Generator().manual_seed(1))
    expected = (numbers / 7).to(getattr(torch, narrow))
    narrowed = divide_in_place(numbers, 7, narrow)
    assert torch.equal(narrowed, expected)
    assert narrowed.data_ptr() == numbers.data_ptr()


def test_an_update_in_bfloat16_keeps_its_dtype() -> None:
    class Half(Plain):
        def model(self) -> nn.Module:
            return super().model().to(torch.bfloat16)

    flat = build_model(Half(), 1)
    before = flat.named_views()["weight"].clone()
    Updater(Half(), flat).apply(total_of(flat, 4.0, "fast"), 2, 2, 0.0)
    assert torch.equal(flat.named_views()["weight"], before - 2.0)
