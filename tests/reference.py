"""The single-process reference: what training must give, whoever computes which task.

It knows of paceline only the user's Job and the two functions that give a task its samples and its seeds.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from paceline.job import Job, SampleSource
from paceline.tasks import task_samples, task_seed


@dataclass
class ReferenceResult:
    """Attributes: state: by name, cloned. losses: mean loss per round."""

    state: dict[str, torch.Tensor]
    losses: list[float] = field(default_factory=list)


def seed_all(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def reference_run(
    job: Job, rounds: Iterable[Sequence[int]], *, seed: int, micro_batch: int, exact: bool = True
) -> ReferenceResult:
    """Train a job by the tasks of each round, one after another, with plain torch.

    Args:
        rounds: task ids of each round; their order matters only without exact sums.
        exact: accumulate in float64 instead of the parameter's dtype.
    """
    seed_all(seed)
    model = job.model()
    seed_all(seed)
    dataset = job.dataset()
    optimizer = job.optimizer(model)
    scheduler = job.scheduler(optimizer)
    result = ReferenceResult({})
    for tasks in rounds:
        loss = _round(job, model, dataset, tasks, seed, micro_batch, exact)
        job.before_step(model)
        optimizer.step()
        if isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step(loss)
        elif scheduler is not None:
            scheduler.step()
        result.losses.append(loss)
    result.state = {name: value.detach().clone() for name, value in model.state_dict().items()}
    return result


def _round(
    job: Job,
    model: torch.nn.Module,
    dataset: SampleSource,
    tasks: Sequence[int],
    seed: int,
    micro_batch: int,
    exact: bool,
) -> float:
    start = {name: buffer.clone() for name, buffer in model.named_buffers()}
    sums = {
        name: torch.zeros_like(p, dtype=torch.float64 if exact else p.dtype)
        for name, p in model.named_parameters()
        if p.requires_grad
    }
    buffer_sums = {name: torch.zeros_like(b, dtype=torch.float64) for name, b in start.items() if b.is_floating_point()}
    lowest: dict[str, torch.Tensor] = {}
    samples, losses = 0, []
    for task in tasks:
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(start[name])
        seed_all(task_seed(seed, task, "loading"))
        batch = job.collate([dataset[int(i)] for i in task_samples(seed, task, micro_batch, len(dataset))])
        seed_all(task_seed(seed, task, "computing"))
        model.zero_grad(set_to_none=True)
        value = job.loss(model, batch)
        loss_sum, n = (value[0], int(value[1])) if isinstance(value, tuple) else (value * micro_batch, micro_batch)
        loss_sum.backward()  # type: ignore[no-untyped-call]
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                sums[name] += parameter.grad
        for name, buffer in model.named_buffers():
            if buffer.is_floating_point():
                buffer_sums[name] += buffer.double() * n
            elif task == min(tasks):
                lowest[name] = buffer.clone()
        samples += n
        losses.append(loss_sum.item())
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            average = buffer_sums[name] / samples if name in buffer_sums else lowest[name]
            buffer.copy_(average.to(buffer.dtype))
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.grad = (sums[name] / samples).to(parameter.dtype)
    return math.fsum(losses) / samples
