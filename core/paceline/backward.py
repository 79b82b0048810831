"""Takes the gradient of what a job's loss returned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from paceline.evaluation import number_of


def backward_of_sum(value: Any, size: int, scale: float = 1.0) -> tuple[float, int, dict[str, float]]:
    """Take the gradient of a loss SUM, given what a job's loss returned.

    Args:
        value: a mean over ``size`` samples, (sum, n), or (sum, n, further sums by name).
        size: samples in the batch.
        scale: the gradient is that of so many times the loss.

    Returns:
        The loss sum, the number it counts, and the further sums.

    Raises:
        ValueError: the value is none of these, or nothing trainable went into it.
    """
    loss, count, sums = (*value, None, None)[:3] if isinstance(value, tuple) else (value, None, None)
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
        what = (
            f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else f"a {type(loss).__name__}"
        )
        raise ValueError(f"loss() gave {what}: expected a scalar tensor with the mean, or (sum, n)")
    if not loss.requires_grad:
        raise ValueError("loss() gave a tensor that does not depend on the model's trainable parameters")
    if count is None:
        _backward(loss, size, scale)
        return loss.item() * size, size, {}
    samples = int(count)
    if samples < 0:
        raise ValueError(f"loss() gave (sum, n) with n = {samples}: expected a count")
    if sums is not None and not isinstance(sums, Mapping):
        raise ValueError(f"loss() gave (sum, n, {type(sums).__name__}): expected a dict of sums by name")
    _backward(loss, 1, scale)
    return loss.item(), samples, {str(name): number_of(number) for name, number in (sums or {}).items()}


def _backward(loss: torch.Tensor, times: int, scale: float) -> None:
    if loss.dtype == torch.float16:
        loss = loss.float()  # which has room for a scale
    torch.autograd.backward(loss, torch.full_like(loss, times * scale))
