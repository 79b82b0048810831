"""Measures a model: with the user's evaluate, or with validate, batch by batch."""

from __future__ import annotations

import contextlib
import numbers
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from paceline.errors import RunFailedError, TaskError
from paceline.job import Batch, Job
from paceline.round_sums import GivenSums, check_sums
from paceline.seeding import seed_everything
from paceline.task_loading import TaskBatch, TaskLoader, failures, on_device
from paceline.tasks import VALIDATION, task_seed
from paceline.tracebacks import describe


def evaluate(job: Job, module: torch.nn.Module) -> dict[str, float]:
    """Run a job's evaluate on a model of its own, in eval() mode and without gradients.

    Args:
        module: a copy that nobody steps meanwhile (FlatModel.copy_from makes it cheaply); its modes are left as found.

    Returns:
        The metrics by name, as floats; NaN is allowed.

    Raises:
        RunFailedError: evaluate raised (the cause), or gave something else than a dict of numbers.
    """
    try:
        with measuring(module):
            metrics = job.evaluate(module)
    except Exception as error:
        raise RunFailedError(f"evaluate() raised {describe(error)}") from error
    return _checked(metrics, "evaluate()")


@contextlib.contextmanager
def measuring(module: torch.nn.Module) -> Iterator[None]:
    """Put a model into eval() mode, without gradients; afterwards its modes are as they were."""
    modes = [(child, child.training) for child in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for child, training in modes:
            child.training = training


@dataclass(frozen=True, slots=True)
class ValidationSums:
    """What a validation task gave.

    Attributes:
        samples: number that the sums count: the samples, or the n of the job's (sums, n).
    """

    sums: Mapping[str, float]
    samples: int


def validate_task(job: Job, module: torch.nn.Module, batch: TaskBatch, seed: int) -> ValidationSums:
    """Run a job's validate on a loaded validation task.

    Args:
        seed: the run's; what validate draws depends on it and on the task alone.

    Raises:
        TaskError: the job's code raised, memory ran out, or a sum is not finite.
    """
    seed_everything(task_seed(seed, batch.task, "computing"))
    sums: dict[str, float] = {}
    samples = 0
    with failures(batch.task, "validating"), measuring(module):
        for part, size in zip(batch.parts, batch.sizes, strict=True):
            part_sums, part_samples = _sums(job, module, part, size)
            samples += part_samples
            for name, value in part_sums.items():
                sums[name] = sums.get(name, 0.0) + value
        check_sums(sums, "validate()", taken=())
    return ValidationSums(sums, samples)


def validate(job: Job, module: torch.nn.Module, loader: TaskLoader, tasks: int, seed: int) -> dict[str, float]:
    """Measure a model on all validation tasks in this process; gives what workers' sums would.

    Raises:
        RunFailedError: the job's code raised, or gave what are no sums or metrics.
    """
    device = next(module.parameters()).device
    given = GivenSums()
    try:
        for task in range(VALIDATION, VALIDATION + tasks):
            measured = validate_task(job, module, on_device(loader.load(task), device), seed)
            given.add(measured.sums.items(), measured.samples)
    except TaskError as error:
        raise RunFailedError(str(error)) from error.__cause__
    return metrics_of(job, dict(given.means()))


def metrics_of(job: Job, means: Mapping[str, float]) -> dict[str, float]:
    """Have a job make its metrics of the means.

    Raises:
        RunFailedError: metrics() raised, or gave something else than a dict of numbers.
    """
    try:
        metrics = job.metrics(dict(means))
    except Exception as error:
        raise RunFailedError(f"metrics() raised {describe(error)}") from error
    return _checked(metrics, "metrics()")


def _sums(job: Job, module: torch.nn.Module, part: Batch, size: int) -> tuple[dict[str, float], int]:
    given: Any = job.validate(module, part)
    sums, count = given if isinstance(given, tuple) and len(given) == 2 else (given, size)
    if not isinstance(sums, Mapping):
        expected = "expected a dict of sums by name, or (sums, n)"
        raise ValueError(f"validate() gave a {type(given).__name__}: {expected}")
    samples = int(count)
    if samples < 0:
        raise ValueError(f"validate() gave (sums, n) with n = {samples}: expected a count")
    return {str(name): number_of(value) for name, value in sums.items()}, samples


def number_of(value: Any) -> float:
    """Give a sum of the job's as a float."""
    return float(value.detach().item() if isinstance(value, torch.Tensor) else value)


def _checked(metrics: object, whose: str) -> dict[str, float]:
    if not isinstance(metrics, dict):
        raise RunFailedError(f"{whose} gave a {type(metrics).__name__}: expected a dict like {{'accuracy': 0.97}}")
    checked = {}
    for name, value in metrics.items():
        number = value.item() if isinstance(value, torch.Tensor) and value.numel() == 1 else value
        if not isinstance(number, numbers.Real):
            raise RunFailedError(f"{whose} gave {name!r} as a {type(value).__name__}: expected a number")
        checked[str(name)] = float(number)
    return checked
