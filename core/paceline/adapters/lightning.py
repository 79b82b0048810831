"""A LightningModule and its data as a Job: the module stays as it is.

What is taken: training_step, validation_step, what they log, configure_optimizers, the dataloaders' datasets and
collate functions, on_before_optimizer_step, clipping by value or norm. What cannot be taken, since a round is one
gradient of many machines, is refused by name. Tested against Lightning's own Trainer, batch by batch.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from paceline.adapters.making import LoaderParts, ModuleOrMaker, batch_size_of, made, same_collate
from paceline.errors import UsageError
from paceline.extras import needed
from paceline.job import Batch, Job, Loss, Sample, SampleSource, Sums

# Where these are the module's own, Lightning's loop would have run them: they cannot be honoured.
_OWN_LOOP = (
    "backward",
    "configure_gradient_clipping",
    "lr_scheduler_step",
    "manual_backward",
    "optimizer_step",
    "optimizer_zero_grad",
)


class LightningJob(Job):
    """Trains a LightningModule.

    Args:
        module: the module, or the class or function that makes it (then the run's seed draws its weights).
        datamodule: a LightningDataModule, or the class or function that makes it.
        gradient_clip_val, gradient_clip_algorithm: as of Lightning's Trainer; "norm" or "value".
        rounds_per_epoch: a scheduler with interval "epoch", Lightning's default, is stepped once in so many rounds.

    Raises:
        UsageError: Lightning is not installed; later, by what is asked for first: manual optimization, several
            optimizers or schedulers, hooks of a loop of its own, streams, samplers.
    """

    def __init__(
        self,
        module: ModuleOrMaker,
        datamodule: Any,
        *,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str = "norm",
        rounds_per_epoch: int | None = None,
    ) -> None:
        self._lightning = _lightning()
        if gradient_clip_algorithm not in ("norm", "value"):
            raise UsageError(f"gradient_clip_algorithm is {gradient_clip_algorithm!r}: expected norm or value")
        self._module = module
        self._datamodule = datamodule
        self._clip = gradient_clip_val
        self._clip_by = gradient_clip_algorithm
        self._rounds_per_epoch = rounds_per_epoch
        self._training: LoaderParts | None = None
        self._scheduler: Any = None
        self._optimizer: torch.optim.Optimizer | None = None

    def model(self) -> torch.nn.Module:
        """See Job."""
        module: Any = made(self._module)
        if not isinstance(module, self._lightning.LightningModule):
            raise UsageError(f"module is a {type(module).__name__}: expected a LightningModule")
        _check(module, self._lightning.LightningModule)
        module.train()
        return cast(torch.nn.Module, module)

    def dataset(self) -> SampleSource:
        """See Job."""
        data = self._data()
        self._training = LoaderParts(data.train_dataloader(), "train_dataloader()")
        return self._training.dataset

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """See Job."""
        if self._training is None:
            self.dataset()
        assert self._training is not None
        return self._training.collate(samples)

    def loss(self, model: torch.nn.Module, batch: Batch) -> Loss:
        """See Job; what training_step logs are further means of the round."""
        with _logged(model) as log:
            step = cast(Any, model).training_step(*_arguments(model, "training_step", batch))
        loss = step.get("loss") if isinstance(step, dict) else step
        if not isinstance(loss, torch.Tensor):
            raise ValueError(f"training_step() gave a {type(loss).__name__}: expected a loss, or a dict with one")
        sums = {name: value for name, value in log.items() if name not in ("loss", "round")}
        if not sums:
            return loss
        size = batch_size_of(batch)
        return loss * size, size, {f"{name}_sum": value * size for name, value in sums.items()}

    def optimizer(self, model: torch.nn.Module) -> torch.optim.Optimizer:
        """See Job."""
        optimizer, self._scheduler = self._configured(cast(Any, model).configure_optimizers())
        self._optimizer = optimizer
        return optimizer

    def scheduler(self, optimizer: torch.optim.Optimizer) -> Any:
        """See Job."""
        return self._scheduler

    def before_step(self, model: torch.nn.Module) -> None:
        """See Job."""
        cast(Any, model).on_before_optimizer_step(self._optimizer)
        if not self._clip:
            return
        if self._clip_by == "norm":
            torch.nn.utils.clip_grad_norm_(model.parameters(), self._clip)
        else:
            torch.nn.utils.clip_grad_value_(model.parameters(), self._clip)

    def validation(self) -> SampleSource | None:
        """See Job; None where the data have no val_dataloader."""
        data = self._data()
        if not _has_own(data, self._lightning.LightningDataModule, "val_dataloader"):
            return None
        parts = LoaderParts(data.val_dataloader(), "val_dataloader()")
        training = LoaderParts(data.train_dataloader(), "train_dataloader()")
        if not same_collate(parts, training):  # of this package
            raise UsageError("val_dataloader() has another collate_fn than train_dataloader(): expected the same")
        return parts.dataset

    def validate(self, model: torch.nn.Module, batch: Batch) -> Sums:
        """See Job; the metrics are what validation_step logs."""
        with _logged(model) as log:
            cast(Any, model).validation_step(*_arguments(model, "validation_step", batch))
        size = batch_size_of(batch)
        return {f"{name}_sum": value * size for name, value in log.items()}

    def _data(self) -> Any:
        data = made(self._datamodule)
        if not isinstance(data, self._lightning.LightningDataModule):
            raise UsageError(f"datamodule is a {type(data).__name__}: expected a LightningDataModule")
        data.prepare_data()
        data.setup("fit")
        return data

    def _configured(self, given: Any) -> tuple[torch.optim.Optimizer, Any]:
        """Read what configure_optimizers() gave, in any of Lightning's forms."""
        optimizers, schedulers = _as_lists(given)
        if len(optimizers) != 1 or len(schedulers) > 1:
            what = f"{len(optimizers)} optimizers and {len(schedulers)} schedulers"
            raise UsageError(
                f"configure_optimizers() gave {what}: expected one optimizer, since a round is one update; "
                "per-group learning rates are parameter groups of one optimizer"
            )
        return optimizers[0], self._stepped(schedulers[0]) if schedulers else None

    def _stepped(self, given: Any) -> Any:
        """Make a scheduler that paceline steps once per round of one that Lightning steps by its configuration."""
        config = given if isinstance(given, dict) else {"scheduler": given}
        scheduler, frequency = config["scheduler"], int(config.get("frequency", 1))
        if isinstance(scheduler, ReduceLROnPlateau):
            monitor = config.get("monitor")
            if not isinstance(monitor, str):
                raise UsageError("a ReduceLROnPlateau without a monitor: expected the name of what it follows")
            self.plateau_metric = _name(monitor)
            return scheduler
        every = frequency
        if config.get("interval", "epoch") == "epoch":
            if self._rounds_per_epoch is None:
                raise UsageError(
                    f"scheduler {type(scheduler).__name__} is stepped once per epoch, and paceline counts rounds: "
                    'expected "interval": "step" in configure_optimizers(), or rounds_per_epoch=N'
                )
            every *= self._rounds_per_epoch
        return scheduler if every == 1 else _EveryFew(scheduler, every)


class _EveryFew(LRScheduler):
    """Steps a scheduler once in so many steps of its own."""

    def __init__(self, inner: LRScheduler, every: int) -> None:
        self.optimizer = inner.optimizer
        self._inner = inner
        self._every = every
        self._steps = 0

    def step(self, epoch: int | None = None) -> None:
        """Count, and step the scheduler when it is due."""
        self._steps += 1
        if self._steps % self._every == 0:
            self._inner.step()

    def get_last_lr(self) -> list[Any]:
        """Give the scheduler's learning rates."""
        return list(self._inner.get_last_lr())

    def state_dict(self) -> dict[str, Any]:
        """Give the count and the scheduler's state."""
        return {"steps": self._steps, "inner": self._inner.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what state_dict gave."""
        self._steps = state_dict["steps"]
        self._inner.load_state_dict(state_dict["inner"])


def _lightning() -> Any:
    try:
        return needed("lightning.pytorch", "lightning", "LightningJob")
    except UsageError:
        # The same library under its older name.
        return needed("pytorch_lightning", "lightning", "LightningJob")


def _check(module: Any, base: type) -> None:
    if not module.automatic_optimization:
        raise UsageError(
            f"module {type(module).__name__} optimizes by hand (automatic_optimization = False): "
            "expected training_step() to give a loss, since a round's gradient is the sum of many machines'"
        )
    for hook in _OWN_LOOP:
        if _has_own(module, base, hook):
            raise UsageError(f"module {type(module).__name__} has {hook}() of its own: paceline's loop cannot run it")
    if not _has_own(module, base, "training_step"):
        raise UsageError(f"module {type(module).__name__} has no training_step()")


def _has_own(thing: object, base: type, method: str) -> bool:
    return getattr(type(thing), method, None) is not getattr(base, method, None)


def _arguments(module: Any, step: str, batch: Batch) -> tuple[Any, ...]:
    """Give what a step takes: the batch, and an index where it wants one."""
    code = getattr(type(module), step).__code__
    wants_index = code.co_argcount > 2 or bool(code.co_flags & 0x04)
    return (batch, 0) if wants_index else (batch,)


def _as_lists(given: Any) -> tuple[list[Any], list[Any]]:
    if given is None:
        return [], []
    if isinstance(given, dict):
        scheduler = given.get("lr_scheduler")
        return [given["optimizer"]], [] if scheduler is None else [scheduler]
    if isinstance(given, torch.optim.Optimizer):
        return [given], []
    if len(given) == 2 and all(isinstance(part, list | tuple) for part in given):
        return list(given[0]), list(given[1])
    pairs = [_as_lists(part) for part in given]
    return [one for optimizers, _ in pairs for one in optimizers], [one for _, many in pairs for one in many]


@contextlib.contextmanager
def _logged(module: Any) -> Iterator[dict[str, torch.Tensor]]:
    """Hear what a step logs; without a Trainer Lightning itself would pass over it."""
    heard: dict[str, torch.Tensor] = {}

    def log(name: str, value: Any, *_: Any, **__: Any) -> None:
        heard[_name(name)] = _value(name, value)

    def log_dict(values: Any, *_: Any, **__: Any) -> None:
        for name, value in values.items():
            log(name, value)

    object.__setattr__(module, "log", log)
    object.__setattr__(module, "log_dict", log_dict)
    try:
        yield heard
    finally:
        object.__delattr__(module, "log")
        object.__delattr__(module, "log_dict")


def _value(name: str, value: Any) -> torch.Tensor:
    """Give a logged value of a batch; of a torchmetrics object what it gave for this batch."""
    if hasattr(value, "_forward_cache"):
        metric, value = value, value._forward_cache
        metric.reset()
        if value is None:
            raise ValueError(
                f"log({name!r}) of a metric that was updated, not called: expected metric(outputs, labels)"
            )
    return torch.as_tensor(value).detach().double().mean()


def _name(name: str) -> str:
    """Make a name of ours of one of Lightning's, such as train/accuracy."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)
