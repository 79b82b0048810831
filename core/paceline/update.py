"""Turns a round's sum into the next version, on the server. No threads: the caller keeps readers away meanwhile."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from paceline.contribution import ContributionBuffer
from paceline.errors import RunFailedError, UsageError
from paceline.flat import TORCH_DTYPE, FlatModel, all_finite, slot_views
from paceline.job import Job, overrides
from paceline.layout import ITEM_BYTES, Role, Segment
from paceline.link_rates import written_bytes
from paceline.loading import build_optimizer, users_code
from paceline.precision import LossScale, Precision, check_precision
from paceline.seeding import seed_everything
from paceline.task_loading import is_out_of_memory
from paceline.tasks import update_seed
from paceline.tracebacks import describe

# One temporary of 1 MiB is all that narrowing a float64 sum takes.
_PIECE_NUMEL = 1 << 17


class Updater:
    """A job's optimizer and scheduler over its model.

    Args:
        job: its optimizer and scheduler are made here.
        flat: the model they step, in place.
        seed: of the run. What before_step draws depends on it and on the number of the update alone, so that a resumed
            run and a replay draw the same.
        precision: of the gradients that come.

    Attributes:
        loss_scale: for tasks at the present version.

    Raises:
        UsageError: a model that cannot be trained in this precision, an optimizer that cannot be driven by one gradient
            per round (see loading.build_optimizer), or a scheduler that is none.
    """

    def __init__(self, job: Job, flat: FlatModel, seed: int = 0, precision: Precision = "fp32") -> None:
        check_precision(precision, flat)
        self.loss_scale = LossScale(precision)
        self._job = job
        self._flat = flat
        self._seed = seed
        self._updates = 0
        self._may_draw = overrides(job, "before_step")
        self._trainable = {index: parameters for index, _, parameters in flat.trainable()}
        self.optimizer = build_optimizer(job, flat.module)
        with users_code("scheduler()"):
            self.scheduler = job.scheduler(self.optimizer)
        if self.scheduler is not None and not isinstance(self.scheduler, LRScheduler | ReduceLROnPlateau):
            raise UsageError(f"scheduler() gave {self.scheduler!r}: expected a torch learning-rate scheduler")

    def apply(self, total: ContributionBuffer, divisor: float, samples: int, loss: float) -> None:
        """Step the model by a round's sum, which is used up: its bytes become the gradients.

        Args:
            total: the sum of the round's contributions, on the model's device, of the model's layout.
            divisor: the gradients' sum is divided by it; > 0.
            samples: the buffers' weighted sum is divided by it; > 0.
            loss: the round's mean loss, for schedulers that look at it.

        Raises:
            RunFailedError: divisor or samples is not positive, or before_step, the optimizer or the scheduler raised
                (the cause, which tracebacks.users_traceback formats).
        """
        if divisor <= 0 or samples <= 0:
            raise RunFailedError(f"a round with divisor {divisor} and {samples} samples: expected both positive")
        self._take_buffers(total, samples)
        for segment, summed in self._gradients_of(total):
            region = self._flat.layout.regions[segment.region]
            gradient = divide_in_place(summed, divisor, region.dtype)
            for parameter, view in zip(self._trainable[segment.region], slot_views(region, gradient), strict=True):
                parameter.grad = view
        try:
            self._step(loss)
        except Exception as error:
            if is_out_of_memory(error):
                raise RunFailedError(self.no_room(error)) from error
            raise RunFailedError(f"the update (before_step, optimizer, scheduler) raised {describe(error)}") from error
        # Or they would keep the sum's memory from its next use.
        for parameter in itertools.chain.from_iterable(self._trainable.values()):
            parameter.grad = None
        self.loss_scale.made()

    def no_room(self, error: Exception) -> str:
        """Say that memory ran out in an update, and what could be done."""
        nbytes = sum(self._flat.regions[index].nbytes for index in self._trainable)
        kind = type(self.optimizer).__name__
        return (
            f"the update ran out of memory on the server ({self._flat.device}): the parameters take"
            f" {written_bytes(nbytes)}, {kind} keeps its state beside them; expected more memory, another --device, or"
            f" an optimizer that keeps less ({describe(error)})"
        )

    def overflows(self, total: ContributionBuffer) -> bool:
        """Tell whether a sum's gradients are not finite, and the loss scale may be why: it is to be skipped then."""
        if not self.loss_scale.bears_overflow:
            return False
        return not all(all_finite(summed) for _, summed in self._gradients_of(total))

    def skip(self, total: ContributionBuffer, samples: int) -> None:
        """Take of a sum the buffers alone, and make the loss scale smaller.

        Parameters, optimizer and scheduler stay as they are.
        """
        self._take_buffers(total, samples)
        self.loss_scale.skipped()

    @property
    def follows_metric(self) -> bool:
        """Tell whether the learning rate follows a metric of validation()."""
        return isinstance(self.scheduler, ReduceLROnPlateau) and self._job.plateau_metric is not None

    def measured(self, metrics: Mapping[str, float]) -> None:
        """Let a learning rate that follows a metric know it; between two updates.

        Raises:
            RunFailedError: there is no such metric, or the scheduler raised (the cause).
        """
        name = self._job.plateau_metric
        if not isinstance(self.scheduler, ReduceLROnPlateau) or name is None:
            return
        if name not in metrics:
            known = ", ".join(sorted(metrics)) or "nothing"
            raise RunFailedError(f"plateau_metric names metric {name!r}, but the evaluation gave {known}")
        try:
            self.scheduler.step(metrics[name])
        except Exception as error:
            raise RunFailedError(f"the scheduler raised {describe(error)}") from error

    def state_dict(self) -> dict[str, Any]:
        """Give the state of optimizer, scheduler and job, for saving; its tensors are their own, not copies."""
        scheduler = None if self.scheduler is None else self.scheduler.state_dict()
        return {
            "optimizer": self.optimizer.state_dict(),
            "scheduler": scheduler,
            "job": self._job.state_dict(),
            "updates": self._updates,
            "loss_scale": self.loss_scale.state_dict(),
            "kinds": self._kinds(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved state.

        Raises:
            UsageError: it is of another kind of optimizer or scheduler.
        """
        if state["kinds"] != self._kinds():
            raise UsageError(f"the state is of {_named(state['kinds'])}: the job has {_named(self._kinds())} now")
        self.optimizer.load_state_dict(state["optimizer"])
        _keep_dtypes(self.optimizer, state["optimizer"]["state"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        self._job.load_state_dict(state["job"])
        self._updates = state["updates"]
        self.loss_scale.load_state_dict(state["loss_scale"])

    def _gradients_of(self, total: ContributionBuffer) -> Iterator[tuple[Segment, torch.Tensor]]:
        for segment, summed in zip(total.layout.segments, total.segments, strict=True):
            if segment.region in self._trainable:
                yield segment, summed

    def _take_buffers(self, total: ContributionBuffer, samples: int) -> None:
        for segment, summed in zip(total.layout.segments, total.segments, strict=True):
            flat, role = self._flat.regions[segment.region], self._flat.layout.regions[segment.region].role
            if role is Role.AVERAGED:
                flat.copy_(summed.div_(samples))
            elif role is not Role.TRAINABLE:
                flat.copy_(summed)

    def _kinds(self) -> list[str]:
        return [type(self.optimizer).__name__, type(self.scheduler).__name__]

    def _step(self, loss: float) -> None:
        self._updates += 1
        if self._may_draw:
            seed_everything(update_seed(self._seed, self._updates))
        self._job.before_step(self._flat.module)
        self.optimizer.step()
        if isinstance(self.scheduler, ReduceLROnPlateau):
            if not self.follows_metric:
                self.scheduler.step(loss)
        elif self.scheduler is not None:
            self.scheduler.step()


def _named(kinds: list[str]) -> str:
    optimizer, scheduler = kinds
    return f"{optimizer} without a scheduler" if scheduler == "NoneType" else f"{optimizer} with {scheduler}"


def _keep_dtypes(optimizer: torch.optim.Optimizer, saved: Mapping[int, Mapping[str, Any]]) -> None:
    """Undo a conversion: torch gives loaded state its parameter's dtype, also where it had one of its own."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, entries in saved.items():
        state = optimizer.state[parameters[index]]
        for name, value in entries.items():
            if isinstance(value, torch.Tensor) and value.dtype != state[name].dtype:
                state[name] = value.to(state[name].device)


def divide_in_place(summed: torch.Tensor, divisor: float, dtype: str) -> torch.Tensor:
    """Divide a flat sum and narrow it to a parameter's dtype within its own memory.

    The division is done in the sum's dtype, then rounded once. Narrowing goes forward piece by piece: what is written
    ends before what is still to be read begins, since an item of the result is no longer than one of the sum.

    Args:
        summed: flat, float32 or float64; destroyed.
        divisor: > 0.
        dtype: of the result, at most as wide.

    Returns:
        A view of the sum's memory: as many items of the given dtype.
    """
    if summed.dtype == TORCH_DTYPE[dtype]:
        return summed.div_(divisor)
    narrow = summed.view(torch.uint8)[: summed.numel() * ITEM_BYTES[dtype]].view(TORCH_DTYPE[dtype])
    for start in range(0, summed.numel(), _PIECE_NUMEL):
        piece = summed[start : start + _PIECE_NUMEL] / divisor
        narrow[start : start + _PIECE_NUMEL].copy_(piece)
    return narrow
