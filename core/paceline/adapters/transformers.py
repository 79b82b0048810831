"""What Hugging Face's Trainer takes, as a Job: model, TrainingArguments, datasets, data collator.

Loss (with its count of tokens and label smoothing), optimizer with its groups, and schedule are those of a Trainer
that is made here and never trains; so they are what they are there. Tested against `Trainer.train()`, batch by batch.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch

from paceline.adapters.making import ModuleOrMaker, batch_size_of, made
from paceline.errors import UsageError
from paceline.extras import needed
from paceline.job import Batch, Job, Loss, Sample, SampleSource, Sums

_TRAINER = "_paceline_trainer"
# Arguments by which Trainer would do what paceline's own settings do, and what these are called; with the value that
# leaves it undone.
_OURS = {
    "gradient_accumulation_steps": (1, "--tasks"),
    "fp16": (False, "--precision"),
    "bf16": (False, "--precision"),
    "torch_compile": (False, "a model that is compiled in model()"),
    "deepspeed": (None, "--policy"),
    "auto_find_batch_size": (False, "--micro-steps auto"),
}


class TrainerJob(Job):
    """Trains a model of transformers, or any that gives a loss where labels are among its inputs.

    Args:
        model: the model, or a function that makes it (then the run's seed draws its weights), such as
            ``lambda: GPT2LMHeadModel(config)``.
        args: TrainingArguments, of which optimizer, schedule, weight decay, clipping and label smoothing count;
            max_steps is the number of rounds.
        train_dataset: the samples, or a function that opens them; of a datasets.Dataset without columns that the
            collator cannot take.
        data_collator: None: transformers' default.
        eval_dataset: samples by which workers measure the model ("loss"); None: it is not measured.

    Raises:
        UsageError: transformers is not installed, or args say what paceline's settings do.
    """

    def __init__(
        self,
        model: ModuleOrMaker,
        args: Any,
        train_dataset: Any,
        data_collator: Callable[[list[Any]], Batch] | None = None,
        eval_dataset: Any = None,
    ) -> None:
        self._transformers = needed("transformers", "transformers", "TrainerJob")
        needed("accelerate", "transformers", "TrainerJob")
        self._model = model
        self._args = self._checked(args)
        self._train_dataset = train_dataset
        self._eval_dataset = eval_dataset
        self._collator = data_collator or self._transformers.default_data_collator
        self._staying = _staying(self._transformers.Trainer)

    def model(self) -> torch.nn.Module:
        """See Job."""
        module: Any = made(self._model)
        if self._args.gradient_checkpointing:
            module.gradient_checkpointing_enable()
        module.train()
        self._trainer(module)
        return cast(torch.nn.Module, module)

    def dataset(self) -> SampleSource:
        """See Job."""
        return _opened(self._train_dataset)

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """See Job."""
        return self._collator(list(samples))

    def loss(self, model: torch.nn.Module, batch: Batch) -> Loss:
        """See Job: over tokens, where the model counts them."""
        trainer = self._trainer(model)
        inputs = _taken(model, batch, trainer.label_names)
        count = trainer._get_num_items_in_batch([inputs], _device(model))
        loss: torch.Tensor = trainer.compute_loss(model, dict(inputs), num_items_in_batch=count)
        return loss if count is None else (loss * count, int(count))

    def optimizer(self, model: torch.nn.Module) -> torch.optim.Optimizer:
        """See Job."""
        trainer = self._trainer(model)
        trainer.optimizer = None
        optimizer: torch.optim.Optimizer = trainer.create_optimizer()
        self._of_optimizer = trainer
        return optimizer

    def scheduler(self, optimizer: torch.optim.Optimizer) -> Any:
        """See Job."""
        trainer = self._of_optimizer
        trainer.lr_scheduler = None
        return trainer.create_scheduler(self._args.max_steps, optimizer)

    def before_step(self, model: torch.nn.Module) -> None:
        """See Job."""
        if self._args.max_grad_norm and self._args.max_grad_norm > 0:
            torch.nn.utils.clip_grad_norm_(model.parameters(), self._args.max_grad_norm)

    def validation(self) -> SampleSource | None:
        """See Job."""
        return None if self._eval_dataset is None else _opened(self._eval_dataset)

    def validate(self, model: torch.nn.Module, batch: Batch) -> Sums:
        """See Job: the mean loss of each batch, weighted by its items, where the model counts them."""
        trainer = self._trainer(model)
        inputs = _taken(model, batch, trainer.label_names)
        count = trainer._get_num_items_in_batch([inputs], _device(model))
        # Without the count: how Trainer counts is a matter of its version, and a metric should not depend on it.
        loss = trainer.compute_loss(model, dict(inputs))
        size = batch_size_of(inputs) if count is None else int(count)
        return {"loss_sum": loss * size}, size

    def _trainer(self, model: torch.nn.Module) -> Any:
        """Give the Trainer that knows this model, and lives as long.

        It is made with the model: it seeds all generators, which would change what a task draws.
        """
        trainer = getattr(model, _TRAINER, None)
        if trainer is None:
            trainer = self._staying(model=model, args=self._args)
            object.__setattr__(model, _TRAINER, trainer)
        return trainer

    def _checked(self, args: Any) -> Any:
        if not isinstance(args, self._transformers.TrainingArguments):
            raise UsageError(f"args is a {type(args).__name__}: expected transformers.TrainingArguments")
        for name, (undone, ours) in _OURS.items():
            value = getattr(args, name, undone)
            if value != undone:
                raise UsageError(f"args have {name} = {value!r}: expected {undone!r}; with paceline it is {ours}")
        if args.fsdp:
            raise UsageError(f"args have fsdp = {args.fsdp!r}: expected none; every worker holds the whole model")
        if args.max_steps <= 0 and args.lr_scheduler_type not in ("constant", "constant_with_warmup"):
            kind = str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type))
            raise UsageError(
                f"max_steps is {args.max_steps}: expected the number of rounds, which schedule {kind} needs"
            )
        return dataclasses.replace(args, report_to="none", disable_tqdm=True)


def _staying(trainer: Any) -> Any:
    """Make a Trainer that leaves the model where paceline has put it."""

    def stay(self: Any, model: torch.nn.Module, device: torch.device) -> None:
        pass

    return type("StayingTrainer", (trainer,), {"_move_model_to_device": stay})


def _opened(data: Any) -> SampleSource:
    """Open samples: themselves, not a copy, or what their maker gives."""
    if callable(data) and not hasattr(data, "__getitem__"):
        data = data()
    found: SampleSource = data
    return found


def _taken(model: torch.nn.Module, batch: Batch, labels: Sequence[str]) -> dict[str, Any]:
    """Leave out what the model does not take, as Trainer does with columns that it does not know."""
    known = {*inspect.signature(_unwrapped(model).forward).parameters, *labels, "shift_labels"}
    return {name: value for name, value in batch.items() if name in known}


def _unwrapped(model: torch.nn.Module) -> torch.nn.Module:
    """Give the model that peft has wrapped, if it has."""
    base = getattr(model, "get_base_model", None)
    found: torch.nn.Module = base() if callable(base) else model
    return found


def _device(model: torch.nn.Module) -> torch.device:
    return next(model.parameters()).device
