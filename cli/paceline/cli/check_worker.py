"""The worker's part of `paceline check`: computes tasks and loads samples with the worker's own code."""

from __future__ import annotations

import contextlib
import hashlib
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from time import monotonic

from paceline.cli.check_findings import Trial, named
from paceline.cli.commands import RunCommand
from paceline.contribution import ContributionBuffer
from paceline.coordination.events import TaskFailure, TaskResult
from paceline.errors import TaskError
from paceline.fingerprint import sample_digest
from paceline.flat import FlatModel
from paceline.gradients import ComputeSettings, TaskGradient, TaskRunner
from paceline.job import SampleSource
from paceline.task_loading import TaskBatch, TaskLoader
from paceline.worker.agreement import WarmUp
from paceline.worker.execution import Executor, FinishedTask, Outcome, Slowness
from paceline.worker.leases import FailedTask
from paceline.worker.loader_process import LoaderSource, why_not_sendable
from paceline.worker.loaders import Loaders, LoadersError
from paceline.worker.samples import loaders_for

# The first task again after another one: so what tasks leave behind shows too.
_TASKS = (0, 1, 0)
# Then others are computed for so long, and up to this one, for the time of one.
_MEASURE_S = 1.0
_LAST_TASK = 15
# A loader process imports torch and the job.
_LOADER_START_S = 60.0


@dataclass(slots=True)
class TaskSum:
    """A sum of gradients, as a worker pushes it.

    Attributes:
        samples, loss_sum: over its tasks.
    """

    total: ContributionBuffer
    samples: int = 0
    loss_sum: float = 0.0

    @property
    def loss(self) -> float:
        """Mean over what is counted."""
        return self.loss_sum / self.samples if self.samples else 0.0

    def digest(self) -> str:
        """Hash its bits."""
        self.total.image.to_host()
        return hashlib.sha256(self.total.host_view).hexdigest()


@dataclass(slots=True)
class _Seconds:
    first: float | None = None
    others: list[float] = field(default_factory=list)
    loading: list[float] = field(default_factory=list)

    def note(self, seconds: float, loading: float) -> None:
        if self.first is None:
            self.first = seconds
        else:
            self.others.append(seconds)
            self.loading.append(loading)


def compute(trial: Trial, dataset: SampleSource, flat: FlatModel) -> TaskSum | None:
    """Compute two tasks, the first of them twice, and then others for the time of one.

    Returns:
        The sum of all but the second; None: one failed.
    """
    found, findings = trial.found, trial.findings
    runner = TaskRunner(trial.job, flat, dataset, ComputeSettings.of(trial.settings.shared()))
    executor = Executor(runner, Slowness(), lambda _seconds, _wanted: None, lambda: None)
    one, seconds, digests = TaskSum(runner.new_sum()), _Seconds(), list[str]()
    with findings.step(), _gradients_noted(flat) as missing:
        for number, task in enumerate((*_TASKS, *range(2, _LAST_TASK + 1))):
            if number >= len(_TASKS) and sum(seconds.others) > _MEASURE_S:
                break
            result, gradient = _finished(executor.run(task, 0.0, lambda: True))
            seconds.note(result.seconds, result.data_s)
            found.tasks_computed += 1
            if task == 0:
                one.total.zero_()
                one.samples, one.loss_sum = 0, 0.0
            if task != 1:
                runner.accumulate(one.total, gradient)
                one.samples += gradient.samples
                one.loss_sum += gradient.loss_sum
            if task == 0:
                digests.append(one.digest())
        found.first_s, found.loss = seconds.first, one.loss
        found.task_s, found.load_s = statistics.median(seconds.others), statistics.median(seconds.loading)
        if missing:
            findings.notes.append(
                f"{named(sorted(missing))} of the model got no gradient: loss() does not use it; it counts as 0, and"
                " weight decay still moves it; requires_grad_(False) takes it out of what travels"
            )
        _compare(digests, runner, trial)
        return one
    return None


def load_elsewhere(trial: Trial, dataset: SampleSource) -> None:
    """See whether samples can be loaded by processes of their own: where a worker would have some, by starting one."""
    settings, found = trial.settings, trial.found
    task_s, load_s = found.task_s or 0.0, found.load_s or 0.0
    found.loaders = loaders_for(settings.loaders, WarmUp(None, load_s, task_s - load_s))
    batch = TaskLoader(trial.job, dataset, settings.seed, settings.micro_batch, settings.partition).load(0)
    reason = why_not_sendable(batch)
    if not reason and found.loaders:
        reason = _why_not_loaded(settings, batch)
    if reason:
        trial.findings.notes.append(
            f"samples cannot be loaded beside the computing (--loaders): {reason}; the computing thread loads them"
        )


def _finished(outcome: Outcome) -> tuple[TaskResult, TaskGradient]:
    """Give what a task ended with.

    Raises:
        TaskError: it failed.
    """
    if isinstance(outcome, FinishedTask):
        assert outcome.gradient is not None  # validation tasks alone have none
        return outcome.result, outcome.gradient
    assert isinstance(outcome, FailedTask)  # nobody gives one up here
    raise TaskError(outcome.message, TaskFailure(outcome.failure).value, outcome.traceback_text)


def _compare(digests: list[str], runner: TaskRunner, trial: Trial) -> None:
    """Say whether the first task gave the same gradient twice, and if not, where the difference begins."""
    trial.found.same_bits = len(set(digests)) == 1
    if trial.found.same_bits:
        return
    if len({sample_digest(runner.load(0).parts) for _ in range(2)}) > 1:
        where = (
            "its samples differ: dataset() or collate() looks at the clock, or draws from a generator of its own"
            " instead of torch's, numpy's or random's global one"
        )
    else:
        where = (
            "its samples are the same: loss() or the model keeps something from task to task or draws from a generator"
            " of its own, or the device has no deterministic code for it"
        )
    trial.findings.notes.append(f"task 0 gave another gradient the second time, so a replay has other bits; {where}")


def _why_not_loaded(settings: RunCommand, batch: TaskBatch) -> str:
    """Have a loader process load the first task too; say what went wrong, empty: nothing."""
    limit_s = settings.loader_limit_s + _LOADER_START_S
    loaders = Loaders(
        LoaderSource(settings.job, settings.data, settings.shared(), (settings.cache, settings.cache_bytes)),
        1,
        limit_s=limit_s,
        pin_memory=False,
    )
    until = monotonic() + 2.0 * limit_s
    try:
        elsewhere = loaders.take(0, lambda: monotonic() < until, lambda: None)
    except (LoadersError, TaskError) as error:
        return str(error)
    finally:
        loaders.close()
        loaders.join(limit_s)
    if elsewhere is None:
        return f"nothing came within {2.0 * limit_s:g} s"
    same = sample_digest(elsewhere.parts) == sample_digest(batch.parts)
    return "" if same else "task 0 has other samples when another process loads it"


@contextlib.contextmanager
def _gradients_noted(flat: FlatModel) -> Iterator[set[str]]:
    """Give the names of the trained parameters, from which those go that get a gradient."""
    trained = {name: p for name, p in flat.module.named_parameters() if p.requires_grad}
    missing = set(trained)
    hooks = [
        parameter.register_post_accumulate_grad_hook(lambda _, name=name: missing.discard(name))  # type: ignore[no-untyped-call]  # torch's own
        for name, parameter in trained.items()
    ]
    try:
        yield missing
    finally:
        for hook in hooks:
            hook.remove()
