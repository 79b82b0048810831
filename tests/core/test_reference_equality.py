"""Who computes what does not matter: workers' sums give the reference's parameters, to the bit with exact sums."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

import pytest
import torch

from paceline.flat import FlatModel, build_model
from paceline.gradients import ComputeSettings, TaskRunner
from paceline.job import Job
from paceline.layout import Sums
from paceline.loading import build_dataset
from paceline.update import Updater
from tests.jobs import Augmented, DigitsLike, DigitsLikeAdam, DigitsLikeFloat64
from tests.reference import ReferenceResult, reference_run

SEED = 11
MICRO_BATCH = 8
TASKS_PER_ROUND = 7


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def train(job: Job, n_rounds: int, n_workers: int, sums: Sums, micro_steps: int = 1) -> ReferenceResult:
    """Train with each worker in its own model, and tasks, their order and the order of pushes drawn at random."""
    chance = random.Random(n_workers)
    settings = ComputeSettings(seed=SEED, micro_batch=MICRO_BATCH, micro_steps=micro_steps, sums=sums)
    server = build_model(job, SEED)
    updater = Updater(job, server)
    workers = []
    for _ in range(n_workers):
        flat = build_model(job, SEED)
        flat.constants_view[:] = server.constants_view
        dataset = build_dataset(job, SEED, MICRO_BATCH)
        workers.append((flat, TaskRunner(job, flat, dataset, settings)))
    losses = []
    for number in range(n_rounds):
        tasks = list(range(number * TASKS_PER_ROUND, (number + 1) * TASKS_PER_ROUND))
        chance.shuffle(tasks)
        split: list[list[int]] = [[] for _ in workers]
        for task in tasks:
            chance.choice(split).append(task)
        pushed, task_losses, samples = [], [], 0
        for (flat, runner), mine in zip(workers, split, strict=True):
            flat.version_view[:] = server.version_view
            runner.adopt_version()
            total = runner.new_sum()
            for task in mine:
                done = runner.compute(runner.load(task))
                assert done is not None
                runner.accumulate(total, done)
                task_losses.append(done.loss_sum)
                samples += done.samples
            if mine:
                assert total.is_finite()
                pushed.append(total)
        chance.shuffle(pushed)
        first, *others = pushed
        for other in others:
            first.add_(other)
        losses.append(math.fsum(task_losses) / samples)
        updater.apply(first, samples, samples, losses[-1])
        assert server.non_finite() == []
    return ReferenceResult(_state(server), losses)


def _state(flat: FlatModel) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in flat.module.state_dict().items()}


def _rounds(n_rounds: int) -> list[range]:
    return [range(k * TASKS_PER_ROUND, (k + 1) * TASKS_PER_ROUND) for k in range(n_rounds)]


def largest_difference(a: ReferenceResult, b: ReferenceResult) -> float:
    """Largest norm of a tensor's difference over its norm."""
    assert a.state.keys() == b.state.keys()
    return max(
        float((a.state[name] - b.state[name]).norm() / b.state[name].norm())
        for name in a.state
        if a.state[name].is_floating_point() and b.state[name].isfinite().all()
    )


@pytest.mark.parametrize("n_workers", [1, 3, 5])
@pytest.mark.parametrize("job_class", [DigitsLike, DigitsLikeAdam, Augmented])
def test_exact_sums_equal_the_reference_to_the_bit(job_class: type[Job], n_workers: int) -> None:
    reference = reference_run(job_class(), _rounds(30), seed=SEED, micro_batch=MICRO_BATCH)
    trained = train(job_class(), 30, n_workers, "exact")
    assert trained.state.keys() == reference.state.keys()
    for name, value in reference.state.items():
        assert torch.equal(trained.state[name], value), name
    assert trained.losses == pytest.approx(reference.losses, rel=1e-6)
    assert reference.losses[-1] < reference.losses[0]


def test_fast_sums_stay_close_to_the_reference() -> None:
    reference = reference_run(DigitsLike(), _rounds(20), seed=SEED, micro_batch=MICRO_BATCH)
    trained = train(DigitsLike(), 20, 3, "fast")
    assert 0 < largest_difference(trained, reference) < 2e-5


@pytest.mark.parametrize("sums", ["fast", "exact"])
def test_a_float64_model_stays_within_1e_9(sums: Sums) -> None:
    reference = reference_run(DigitsLikeFloat64(), _rounds(20), seed=SEED, micro_batch=MICRO_BATCH)
    trained = train(DigitsLikeFloat64(), 20, 3, sums)
    assert largest_difference(trained, reference) < 1e-9


def test_micro_steps_give_the_same_split_whoever_computes() -> None:
    alone = train(DigitsLikeAdam(), 10, 1, "exact", micro_steps=3)
    shared = train(DigitsLikeAdam(), 10, 4, "exact", micro_steps=3)
    for name, value in alone.state.items():
        assert torch.equal(shared.state[name], value), name


def test_constant_buffers_stay_constant_with_fast_sums() -> None:
    trained = train(Augmented(), 5, 3, "fast")
    start = build_model(Augmented(), SEED).module.state_dict()
    for name in ("mask", "scale", "frozen.weight"):
        assert torch.equal(trained.state[name], start[name]), name
