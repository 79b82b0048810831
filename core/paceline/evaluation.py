"""Measures a model with the user's evaluate."""

from __future__ import annotations

import numbers

import torch

from paceline.errors import RunFailedError
from paceline.job import Job
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
    modes = [(child, child.training) for child in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            metrics = job.evaluate(module)
    except Exception as error:
        raise RunFailedError(f"evaluate() raised {describe(error)}") from error
    finally:
        for child, training in modes:
            child.training = training
    return _checked(metrics)


def _checked(metrics: object) -> dict[str, float]:
    if not isinstance(metrics, dict):
        raise RunFailedError(f"evaluate() gave a {type(metrics).__name__}: expected a dict like {{'accuracy': 0.97}}")
    checked = {}
    for name, value in metrics.items():
        number = value.item() if isinstance(value, torch.Tensor) and value.numel() == 1 else value
        if not isinstance(number, numbers.Real):
            raise RunFailedError(f"evaluate() gave {name!r} as a {type(value).__name__}: expected a number")
        checked[str(name)] = float(number)
    return checked
