"""The loop that everybody writes, over the tasks of a job: what a job's training is held against."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from paceline.flat import build_model
from paceline.job import Job
from paceline.loading import build_dataset
from paceline.task_loading import TaskLoader
from tests.curves import MICRO_BATCH, SEED, curve_of

ROUNDS, TASKS = 12, 2


def plain_loop(job: Job, after_step: Callable[[torch.nn.Module], None] | None = None) -> dict[str, torch.Tensor]:
    """Train as a script would: a batch of all samples of a round's tasks, backward, clip, step, schedule."""
    module = build_model(job, SEED).module
    loader = TaskLoader(job, build_dataset(job, SEED, MICRO_BATCH), SEED, MICRO_BATCH)
    optimizer = job.optimizer(module)
    scheduler = job.scheduler(optimizer)
    for number in range(ROUNDS):
        optimizer.zero_grad()
        parts = [loader.load(task).parts[0] for task in range(number * TASKS, (number + 1) * TASKS)]
        batch = [torch.cat(columns) for columns in zip(*parts, strict=True)]
        value: Any = job.loss(module, batch)
        loss = value[0] / value[1] if isinstance(value, tuple) else value
        loss.backward()
        job.before_step(module)
        optimizer.step()
        if isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step(loss.detach())
        elif scheduler is not None:
            scheduler.step()
        if after_step is not None:
            after_step(module)
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def assert_trains_as_plain(make: Callable[[], Job], tolerance: float = 1e-5) -> list[float]:
    """Compare a job's training, task by task, with the plain loop; gives its losses."""
    losses, state = curve_of(make(), ROUNDS, TASKS)
    expected = plain_loop(make())
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.allclose(state[name].double(), tensor.double(), atol=tolerance, rtol=1e-4), name
    assert math.isfinite(losses[-1])
    assert losses[-1] < losses[0]
    return losses
