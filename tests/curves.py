"""Loss curves: of a job, trained in this process by the worker's and the server's own code, and of the original."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from paceline.flat import build_model
from paceline.gradients import ComputeSettings, TaskRunner
from paceline.job import Job
from paceline.loading import build_dataset
from paceline.tasks import task_samples
from paceline.update import Updater

SEED = 4
MICRO_BATCH = 8


def curve_of(job: Job, rounds: int, tasks: int = 2) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Train a job; gives the loss of each round, and the trained state."""
    settings = ComputeSettings(seed=SEED, micro_batch=MICRO_BATCH)
    server, here = build_model(job, SEED), build_model(job, SEED)
    updater = Updater(job, server, SEED)
    runner = TaskRunner(job, here, build_dataset(job, SEED, MICRO_BATCH), settings)
    losses = []
    for number in range(rounds):
        here.version_view[:] = server.version_view
        runner.adopt_version()
        total, done = runner.new_sum(), []
        for task in range(number * tasks, (number + 1) * tasks):
            gradient = runner.compute(runner.load(task))
            assert gradient is not None
            runner.accumulate(total, gradient)
            done.append(gradient)
        samples = sum(gradient.samples for gradient in done)
        losses.append(math.fsum(gradient.loss_sum for gradient in done) / samples)
        updater.apply(total, samples, samples, losses[-1])
    return losses, {name: tensor.detach().clone() for name, tensor in server.module.state_dict().items()}


def order_of(n_samples: int, rounds: int, tasks: int = 2) -> list[int]:
    """Give the samples in the order in which the job meets them, for a loop that draws none of its own."""
    return [
        index for task in range(rounds * tasks) for index in task_samples(SEED, task, MICRO_BATCH, n_samples).tolist()
    ]


def batches_of(order: Sequence[int]) -> list[Sequence[int]]:
    return [order[start : start + MICRO_BATCH] for start in range(0, len(order), MICRO_BATCH)]


def largest_difference(one: Sequence[float], other: Sequence[float]) -> float:
    assert len(one) == len(other)
    return max(abs(a - b) for a, b in zip(one, other, strict=True))
