"""Computes one task's gradient in a worker. No I/O, no threads, no clock.

Three buffers of the model's size are enough: the parameters (the pulled version), the current gradient, and the sum of
the kept ones. The current gradient stays apart until somebody says that the task is kept.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch

from paceline.backward import backward_of_sum
from paceline.compiling import Compiled
from paceline.contribution import ContributionBuffer
from paceline.errors import PacelineError, SettingsError, TaskError
from paceline.evaluation import ValidationSums, validate_task
from paceline.flat import TORCH_DTYPE, FlatModel, non_finite_slots, slot_views
from paceline.job import Batch, Job, SampleSource
from paceline.layout import Role, Rule, Sums, contribution_layout
from paceline.precision import Precision, autocast
from paceline.round_sums import check_sums
from paceline.seeding import seed_everything
from paceline.settings import SharedSettings
from paceline.task_loading import TaskBatch, TaskLoader, channels_last, failures, on_device
from paceline.tasks import task_seed


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeSettings:
    """What server and workers must agree on to compute the same task alike; said once, to the server.

    Attributes:
        micro_batch: samples per task.
        micro_steps: slices of a task, each with its own forward and backward; at most micro_batch. "auto": one,
            and twice as many whenever memory runs out.
        precision: "fp32" computes in the model's own dtype, the others under autocast.
        channels_last: batches' pictures are laid out so, see task_loading.channels_last.
        compile: the model is compiled, see compiling.Compiled.
        sums: "fast" or "exact", see layout.contribution_layout.
        partition: parts of the data, see tasks.task_samples.

    Raises:
        SettingsError: a count below 1, or more micro-steps than samples.
    """

    seed: int
    micro_batch: int
    micro_steps: int | Literal["auto"] = 1
    precision: Precision = "fp32"
    channels_last: bool = False
    compile: bool = False
    sums: Sums = "fast"
    partition: int = 0

    def __post_init__(self) -> None:
        if self.micro_batch < 1:
            raise SettingsError(f"micro-batch is {self.micro_batch}: expected at least 1 sample per task")
        if self.micro_steps != "auto" and not 1 <= self.micro_steps <= self.micro_batch:
            expected = f"expected 1 to {self.micro_batch}, the micro-batch"
            raise SettingsError(f"micro-steps is {self.micro_steps}: {expected}")

    @classmethod
    def of(cls, shared: SharedSettings) -> ComputeSettings:
        """Pick out what computing needs."""
        return cls(**{field.name: getattr(shared, field.name) for field in dataclasses.fields(cls)})


@dataclass(frozen=True, slots=True)
class TaskGradient:
    """A computed task, whose gradient lies in the runner's current gradient buffer.

    Attributes:
        loss_sum: sum of the losses over what the job counts.
        samples: number that it counts: the samples, or the n of the job's (sum, n).
        sums: further sums over the same, by name.
        micro_steps: slices that it was computed in.
    """

    task: int
    loss_sum: float
    samples: int
    sums: Mapping[str, float] = field(default_factory=dict)
    micro_steps: int = 1


class TaskRunner:
    """Loads and computes tasks at the version that the model holds.

    Args:
        job: the user's job.
        flat: its model; after writing a version into it, call adopt_version.
        dataset: its samples, at least settings.micro_batch.
        settings: as the server said.
        validation: samples of the validation tasks; None: there are none.

    Attributes:
        micro_steps: slices that tasks are loaded in.
        notice: called with what somebody should hear of.
    """

    def __init__(
        self,
        job: Job,
        flat: FlatModel,
        dataset: SampleSource,
        settings: ComputeSettings,
        validation: SampleSource | None = None,
    ) -> None:
        self._job = job
        self._flat = flat
        self._settings = settings
        self.notice: Callable[[str], None] = lambda text: None
        self.micro_steps = 1 if settings.micro_steps == "auto" else settings.micro_steps
        self._contribution_layout = contribution_layout(flat.layout, settings.sums)
        self._gradients = [
            torch.zeros(r.numel, dtype=TORCH_DTYPE[r.dtype], device=flat.device) for _, r, _ in flat.trainable()
        ]
        self._views = [
            (parameter, view)
            for (_, region, parameters), gradient in zip(flat.trainable(), self._gradients, strict=True)
            for parameter, view in zip(parameters, slot_views(region, gradient), strict=True)
        ]
        self._sources = self._list_sources()
        self._compiled = Compiled(flat.module) if settings.compile else None
        self._version_buffers = flat.buffers.clone()
        self._loss_scale = 1.0
        self._current: TaskGradient | None = None
        self._loader = TaskLoader(
            job, dataset, settings.seed, settings.micro_batch, settings.partition, validation=validation
        )

    def new_sum(self) -> ContributionBuffer:
        """Make an empty contribution on the model's device."""
        return ContributionBuffer(self._contribution_layout, self._flat.device)

    def adopt_version(self, loss_scale: float = 1.0) -> None:
        """Keep the buffers that a pull has just written: every task of this version starts from them.

        Args:
            loss_scale: of this version, a power of two; above 1 a gradient need not be finite, see precision.LossScale.
        """
        self._version_buffers.copy_(self._flat.buffers)
        self._loss_scale = loss_scale

    def load(self, task: int, micro_steps: int | None = None) -> TaskBatch:
        """Load a task's samples and move them to the device.

        Args:
            task: its id.
            micro_steps: slices; None: as many as tasks have now.

        Raises:
            TaskError: the dataset or the job's collate raised, or memory ran out.
        """
        return self.fetch(self._loader.load(task, micro_steps or self.micro_steps))

    @property
    def splits(self) -> bool:
        """Tell whether the number of slices is this runner's own."""
        return self._settings.micro_steps == "auto"

    def fetch(self, batch: TaskBatch) -> TaskBatch:
        """Move a task that was loaded elsewhere to the device.

        Raises:
            TaskError: memory ran out.
        """
        with failures(batch.task, "loading"):
            fetched = on_device(batch, self._flat.device)
            return channels_last(fetched) if self._settings.channels_last else fetched

    def compute(self, batch: TaskBatch, should_stop: Callable[[], bool] = lambda: False) -> TaskGradient | None:
        """Compute a task's gradient into the current gradient buffer, which forgets the one before.

        Args:
            batch: the loaded task.
            should_stop: asked between micro-steps.

        Returns:
            None if should_stop said so; the buffer then holds nothing of use.

        Raises:
            TaskError: the job's code raised, memory ran out, or the loss, a gradient or a buffer is not finite.
        """
        self._current = None
        self._restore()
        seed_everything(task_seed(self._settings.seed, batch.task, "computing"))
        loss_sum, samples = 0.0, 0
        sums: dict[str, float] = {}
        with failures(batch.task, "computing"):
            for number, (part, size) in enumerate(zip(batch.parts, batch.sizes, strict=True)):
                if number and should_stop():
                    return None
                part_loss, part_samples, part_sums = self._step(part, size)
                loss_sum += part_loss
                samples += part_samples
                for name, value in part_sums.items():
                    sums[name] = sums.get(name, 0.0) + value
        self._collect_strays()
        self._unscale()
        self._check_finite(batch.task, loss_sum)
        with failures(batch.task, "computing"):
            check_sums(sums)
        self._current = TaskGradient(batch.task, loss_sum, samples, sums, len(batch.parts))
        return self._current

    def compute_as_it_fits(
        self, batch: TaskBatch, should_stop: Callable[[], bool] = lambda: False
    ) -> TaskGradient | None:
        """Compute a task; where memory runs out and slices are this runner's own, load it again in more of them.

        Where the model cannot be compiled, it is computed as it is from now on, but for exact sums.

        Raises:
            TaskError: see compute and load.
        """
        while True:
            try:
                return self.compute(batch, should_stop)
            except TaskError as error:
                if not self._interpret(error) and (error.kind != "out-of-memory" or not self._split(batch)):
                    raise
            # Out here, where nothing holds what the attempt has left in memory.
            batch = self.load(batch.task)

    def _interpret(self, error: TaskError) -> bool:
        """Leave compiling away, if that is what failed and may be left away."""
        reason = "" if self._compiled is None else self._compiled.failure(error)
        if not reason:
            return False
        if self._settings.sums == "exact":
            raise TaskError(
                f"{error}; with exact sums all workers must compile the model: leave compile away, or say sums = fast",
                error.kind,
                error.traceback_text,
            ) from error
        assert self._compiled is not None
        self._compiled.undo()
        self._compiled = None
        self.notice(f"the model cannot be compiled, and is computed without: {reason}")
        return True

    def validate(self, batch: TaskBatch) -> ValidationSums:
        """Measure the version on a validation task, in more slices where it must; the current gradient is forgotten.

        Raises:
            TaskError: see evaluation.validate_task.
        """
        self._current = None
        while True:
            self._restore()
            try:
                with autocast(self._settings.precision, self._flat.device):
                    return validate_task(self._job, self._flat.module, batch, self._settings.seed)
            except TaskError as error:
                if not self._interpret(error) and (error.kind != "out-of-memory" or not self._split(batch)):
                    raise
            # As in compute_as_it_fits.
            batch = self.load(batch.task)

    def accumulate(self, total: ContributionBuffer, gradient: TaskGradient) -> None:
        """Add the current gradient and the buffers it left to a sum.

        Args:
            total: made by new_sum.
            gradient: what the last compute returned.

        Raises:
            PacelineError: the gradient is not the current one, so its numbers are gone.
        """
        if gradient is not self._current:
            raise PacelineError(
                f"the gradient of task {gradient.task} is gone: it was added or another was computed since"
            )
        self._current = None
        lower = total.lowest_task is None or gradient.task < total.lowest_task
        for (rule, weighted, source), target in zip(self._sources, total.segments, strict=True):
            if rule is Rule.LOWEST:
                if lower:
                    target.copy_(source)
            elif weighted:
                target.add_(source, alpha=gradient.samples)
            else:
                target.add_(source)
        if lower:
            total.lowest_task = gradient.task

    def synchronize(self) -> None:
        """Wait until the device has done all it was given; before a clock is stopped."""
        if self._flat.device.type == "cuda":
            torch.cuda.synchronize(self._flat.device)

    def _split(self, batch: TaskBatch) -> bool:
        """Cut tasks into more slices, since memory ran out for this one; False: it cannot be cut any more, or must not.

        Tasks stay what they are, and so does the sum of their gradients but for rounding.
        """
        parts = len(batch.parts)
        if self._settings.micro_steps != "auto" or parts >= self._settings.micro_batch:
            return False
        self.micro_steps = max(self.micro_steps, min(2 * parts, self._settings.micro_batch))
        if self._flat.device.type == "cuda":
            torch.cuda.empty_cache()
        return True

    def _list_sources(self) -> list[tuple[Rule, bool, torch.Tensor]]:
        """Say for each segment of a contribution: its rule, whether samples weigh it, the flat tensor it comes from."""
        gradients = {index: g for (index, _, _), g in zip(self._flat.trainable(), self._gradients, strict=True)}
        sources = []
        for segment in self._contribution_layout.segments:
            role = self._flat.layout.regions[segment.region].role
            source = gradients.get(segment.region, self._flat.regions[segment.region])
            sources.append((segment.rule, role is Role.AVERAGED, source))
        return sources

    def _restore(self) -> None:
        if self._version_buffers.numel():
            self._flat.buffers.copy_(self._version_buffers)
        for gradient in self._gradients:
            gradient.zero_()
        for parameter, view in self._views:
            if parameter.grad is not view:
                parameter.grad = view

    def _step(self, part: Batch, size: int) -> tuple[float, int, dict[str, float]]:
        with autocast(self._settings.precision, self._flat.device):
            value = self._job.loss(self._flat.module, part)
        return backward_of_sum(value, size, self._loss_scale)

    def _collect_strays(self) -> None:
        """Bring home gradients that are no longer our views, because the job's loss called zero_grad, say."""
        for parameter, view in self._views:
            if parameter.grad is view:
                continue
            if parameter.grad is None:
                view.zero_()
            else:
                view.copy_(parameter.grad)

    def _unscale(self) -> None:
        if self._loss_scale != 1.0:
            for gradient in self._gradients:
                gradient.mul_(1.0 / self._loss_scale)

    def _check_finite(self, task: int, loss_sum: float) -> None:
        if not math.isfinite(loss_sum):
            raise TaskError(f"task {task}: the loss is {loss_sum}", "non-finite")
        bad = [
            f"gradient of {name}"
            for (_, region, _), gradient in zip(self._flat.trainable(), self._gradients, strict=True)
            # Above 1 it may be the scale's doing, which the server takes care of.
            if self._loss_scale == 1.0
            for name in non_finite_slots(region, gradient)
        ]
        for region, flat in zip(self._flat.layout.regions, self._flat.regions, strict=True):
            if region.role is Role.AVERAGED:
                bad += [f"buffer {name}" for name in non_finite_slots(region, flat)]
        if bad:
            more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
            raise TaskError(f"task {task}: {bad[0]}{more} is not finite", "non-finite")
