"""Runs one task against the clock: load, compute, and the sleeps of --pace and --delay. Reports nothing itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

import numpy as np

from paceline.coordination.events import TaskFailure, TaskResult
from paceline.coordination.ids import TaskId
from paceline.errors import TaskError
from paceline.evaluation import ValidationSums
from paceline.gradients import TaskGradient, TaskRunner
from paceline.laws import Law, parse_law
from paceline.settings import WorkerSettings
from paceline.task_loading import TaskBatch
from paceline.tasks import is_validation, task_name
from paceline.worker.leases import FailedTask

Wanted = Callable[[], bool]
# Sleeps so many seconds, or until the task is not wanted any more.
Sleep = Callable[[float, Wanted], None]


@dataclass(frozen=True, slots=True)
class Slowness:
    """What makes a worker slower on purpose.

    Attributes:
        pace: it takes this many times its own compute time.
        delay: law of further seconds per task.
        rng: of the delay's draws.
    """

    pace: float = 1.0
    delay: Law | None = None
    rng: np.random.Generator | None = None

    @classmethod
    def of(cls, settings: WorkerSettings, name: str) -> Slowness:
        """Give that of the worker of this name.

        Raises:
            UsageError: the delay is no law.
        """
        delay = parse_law(settings.delay) if settings.delay else None
        return cls(settings.pace, delay, delay_rng(settings.delay_seed, name))

    def delay_s(self) -> float:
        """Draw the seconds to sleep before a task."""
        return self.delay.draw(self.rng) if self.delay is not None and self.rng is not None else 0.0

    def pause_s(self, own_s: float) -> float:
        """Give the seconds to sleep after a task that took own_s to compute."""
        return (self.pace - 1.0) * own_s


def delay_rng(delay_seed: int | None, name: str) -> np.random.Generator:
    """Make the generator of a worker's delays: its own by name, fresh without a seed."""
    if delay_seed is None:
        return np.random.default_rng()
    return np.random.default_rng([delay_seed, *name.encode()])


@dataclass(frozen=True, slots=True)
class LoadedTask:
    """Samples that were loaded ahead, and the seconds that it took."""

    batch: TaskBatch
    seconds: float


@dataclass(frozen=True, slots=True)
class FinishedTask:
    """A result, and the gradient that lies in the runner's current buffer; a validation task has none."""

    result: TaskResult
    gradient: TaskGradient | None


@dataclass(frozen=True, slots=True)
class GivenUpTask:
    """A task that was stopped because it was not wanted any more."""

    seconds: float


Outcome = FinishedTask | FailedTask | GivenUpTask

# Loads a task; None: it was wanted no more.
Load = Callable[[int, Wanted], TaskBatch | None]


class Executor:
    """Runs tasks.

    Args:
        runner: computes them.
        slowness: makes them take longer.
        sleep: for that.
        worked: hears of each micro-step.
        load: gives the tasks' samples; None: they are loaded here and now.
    """

    def __init__(
        self,
        runner: TaskRunner,
        slowness: Slowness,
        sleep: Sleep,
        worked: Callable[[], None],
        load: Load | None = None,
    ) -> None:
        self._runner = runner
        self._load = load or (lambda task, _: runner.load(task))
        self._slowness = slowness
        self._sleep = sleep
        self._worked = worked

    def load(self, task: int) -> LoadedTask | FailedTask:
        """Load a task's samples ahead."""
        begun = monotonic()
        try:
            batch = self._runner.load(task)
        except (TaskError, SystemExit) as error:
            return _failed(task, error, monotonic() - begun)
        return LoadedTask(batch, monotonic() - begun)

    def run(self, task: int, limit_s: float, wanted: Wanted, loaded: LoadedTask | None = None) -> Outcome:
        """Run a task to its end, its failure, its time limit, or until it is not wanted any more.

        Args:
            task: its id.
            limit_s: seconds that it may take, 0 for any.
            wanted: asked between micro-steps and in sleeps.
            loaded: its samples, if they were loaded ahead; that time counts.
        """
        limit_s = limit_s or math.inf
        ahead_s = loaded.seconds if loaded else 0.0
        begun = monotonic() - ahead_s
        # The delay comes first: the report of the task before goes out meanwhile, and not in this one's computing.
        delay_s = self._slowness.delay_s()
        if delay_s > 0.0:
            self._sleep(min(delay_s, limit_s), wanted)
            if not wanted():
                return GivenUpTask(monotonic() - begun)
            if delay_s > limit_s:
                return _out_of_time(task, limit_s, monotonic() - begun)
        computing = monotonic() - ahead_s
        try:
            batch = loaded.batch if loaded else self._load(task, lambda: wanted() and monotonic() - begun <= limit_s)
            data_s = monotonic() - computing
            done = None if batch is None else self._compute(batch, begun + limit_s, wanted)
        except (TaskError, SystemExit) as error:
            return _failed(task, error, monotonic() - begun)
        self._worked()
        own_s = monotonic() - computing
        pause_s = self._slowness.pause_s(own_s)
        if done is not None and pause_s > 0.0:
            self._sleep(min(pause_s, limit_s - (monotonic() - begun)), wanted)
        seconds = monotonic() - begun
        if not wanted():
            return GivenUpTask(seconds)
        if done is None or max(seconds, delay_s + own_s + pause_s) > limit_s:
            return _out_of_time(task, limit_s, seconds)
        gradient = done if isinstance(done, TaskGradient) else None
        result = TaskResult(
            task=TaskId(task),
            seconds=seconds,
            loss_sum=0.0 if gradient is None else gradient.loss_sum,
            samples=done.samples,
            data_s=min(data_s, seconds),
            sums=tuple(sorted(done.sums.items())),
            micro_steps=gradient.micro_steps if gradient is not None and self._runner.splits else 0,
        )
        return FinishedTask(result, gradient)

    def _compute(self, batch: TaskBatch, until: float, wanted: Wanted) -> TaskGradient | ValidationSums | None:
        """Compute, or measure; None if it was not wanted any more, or took too long."""
        if is_validation(batch.task):
            measured = self._runner.validate(batch)
            self._runner.synchronize()
            return measured

        def should_stop() -> bool:
            self._worked()
            return not wanted() or monotonic() > until

        gradient = self._runner.compute_as_it_fits(batch, should_stop)
        self._runner.synchronize()
        return gradient


def _out_of_time(task: int, limit_s: float, seconds: float) -> FailedTask:
    message = f"{task_name(task)}: took longer than its limit of {limit_s:g} s"
    return FailedTask(task, TaskFailure.TIME_LIMIT, seconds, message)


def _failed(task: int, error: TaskError | SystemExit, seconds: float) -> FailedTask:
    if isinstance(error, SystemExit):
        return FailedTask(task, TaskFailure.EXCEPTION, seconds, f"{task_name(task)}: the job's code called exit()")
    return FailedTask(task, TaskFailure(error.kind), seconds, str(error), error.traceback_text)
