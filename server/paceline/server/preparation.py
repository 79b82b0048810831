"""Builds what a run needs before anybody connects: the job, its model, optimizer and data. All mistakes show here."""

from __future__ import annotations

import math
import resource
from dataclasses import dataclass
from functools import partial

import torch

from paceline.coordination.machine_settings import MachineSettings
from paceline.coordination.policies import ASYNCHRONOUS
from paceline.errors import SettingsError
from paceline.evaluation import evaluate, validate
from paceline.fingerprint import JobFingerprint, fingerprint
from paceline.flat import FlatModel, build_model
from paceline.job import Job, SampleSource, overrides
from paceline.layout import ContributionLayout, contribution_layout
from paceline.loading import build_dataset, build_validation, load_job
from paceline.server.evaluations import Measure
from paceline.server.rehearsal import rehearse
from paceline.settings import NEVER, RunSettings
from paceline.task_loading import TaskLoader
from paceline.tasks import validation_tasks
from paceline.update import Updater
from paceline.weights import load_init

_WANTED_DESCRIPTORS = 65536
# A loss of (sum, n) counts what it likes, tokens mostly; a sample has hardly more of them than this.
COUNTED_PER_SAMPLE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltJob:
    """What a job gives under the run's seed: the start of the run, and of its replay.

    Attributes:
        flat: holds the initial parameters.
    """

    job: Job
    dataset: SampleSource
    validation: SampleSource | None
    flat: FlatModel
    updater: Updater
    layout: ContributionLayout
    fingerprint: JobFingerprint


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """A run that is ready to begin.

    Attributes:
        dataset: names the samples of a task that failed; not read.
        initial_model: fingerprint of the initial parameters.
        evaluation_copy: a model of the same layout for evaluations on the server; None where there are none.
        measure: measures such a model; None where nothing does.
        validation_tasks: that workers measure a version by; 0: they measure none.
        rounds: after so many the run ends; None: when its goal is met.
        stages: for pushes in chunks.
    """

    job: Job
    dataset: SampleSource
    flat: FlatModel
    updater: Updater
    evaluation_copy: FlatModel | None
    measure: Measure | None
    validation_tasks: int
    layout: ContributionLayout
    fingerprint: JobFingerprint
    initial_model: str
    rounds: int | None
    stages: int

    def machine_settings(self, settings: RunSettings, radius_constant: float, life: int = 1) -> MachineSettings:
        """Give what the coordinator is told."""
        interval = settings.interval()
        return MachineSettings(
            tasks=settings.tasks,
            rounds=self.rounds,
            min_workers=settings.min_workers,
            parts=settings.partition,
            life=life,
            lost_after_s=settings.lost_after_s,
            silent_after_s=settings.silent_after_s,
            progress_s=settings.progress_s,
            strikes=settings.strikes,
            most_samples=settings.micro_batch * COUNTED_PER_SAMPLE,
            checkpoint_rounds=interval.rounds,
            checkpoint_s=math.inf if interval.seconds is None else interval.seconds,
            idle_exit_s=math.inf if settings.idle_exit_s is None else settings.idle_exit_s,
            validation_tasks=self.validation_tasks,
            validate_every=settings.evaluate_every(),
            radius_constant=radius_constant,
        )


def prepare(settings: RunSettings) -> Preparation:
    """Load the job and build everything under the run's seed.

    Raises:
        UsageError: something is wrong with the job, its data or the initial weights.
        SettingsError: settings that the job or this machine cannot meet.
    """
    built = build_job(settings)
    check_asked(built.job, built.validation, settings)
    validation_tasks = planned_validation(built.validation, settings)
    measure = None if validation_tasks else measure_of(built.job, built.dataset, built.validation, settings)
    evaluation_copy = None if measure is None else _evaluation_copy(built.job, settings, built.flat.device)
    updater = built.updater
    check_followed(built.job, updater, validation_tasks)
    if settings.interval() != NEVER:
        rehearse(built.job, evaluation_copy or build_model(built.job, settings.seed, built.flat.device))
        # Made anew: a job may have kept the optimizer of the rehearsal for its own.
        updater = Updater(built.job, built.flat, settings.seed, settings.precision)
    return Preparation(
        job=built.job,
        dataset=built.dataset,
        flat=built.flat,
        updater=updater,
        evaluation_copy=evaluation_copy,
        measure=measure,
        validation_tasks=validation_tasks,
        layout=built.layout,
        fingerprint=built.fingerprint,
        initial_model=built.flat.fingerprint(),
        rounds=planned_rounds(settings, len(built.dataset)),
        stages=_stages(settings, built.layout.nbytes),
    )


def build_job(settings: RunSettings) -> BuiltJob:
    """Load the job and build its data, model and optimizer under the run's seed.

    Raises:
        UsageError: something is wrong with the job, its data or the initial weights.
        SettingsError: the device is not there.
    """
    job = load_job(settings.job, settings.data)
    # Reductions over long vectors (clipping) round differently with another number of threads.
    torch.set_num_threads(settings.threads)
    device = parse_device(settings.device)
    dataset = build_dataset(job, settings.seed, settings.micro_batch, settings.partition)
    validation = build_validation(job, settings.seed)
    flat = build_model(job, settings.seed, device)
    if settings.init is not None:
        load_init(flat, settings.init)
    return BuiltJob(
        job=job,
        dataset=dataset,
        validation=validation,
        flat=flat,
        updater=Updater(job, flat, settings.seed, settings.precision),
        layout=contribution_layout(flat.layout, settings.sums),
        fingerprint=fingerprint(job, flat.layout, dataset, settings.seed, validation),
    )


def planned_rounds(settings: RunSettings, n_samples: int) -> int | None:
    """Give the number of rounds that rounds, epochs and until allow: the fewest; one epoch where nothing is said."""
    epochs = settings.epochs
    if epochs is None and settings.rounds is None and settings.until is None:
        epochs = 1
    limits = [settings.rounds] if settings.rounds is not None else []
    if epochs is not None:
        limits.append(math.ceil(epochs * n_samples / (settings.tasks_of_round() * settings.micro_batch)))
    return min(limits, default=None)


def parse_device(name: str) -> torch.device:
    """Read cpu, cuda or cuda:N and see that it is there.

    Raises:
        SettingsError: another word, or no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise SettingsError(f"device is {name!r}: expected auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SettingsError(f"device is {name!r}: this machine has {torch.cuda.device_count()} CUDA devices")
    return device


def raise_descriptor_limit() -> str:
    """Raise the soft limit of open files: a worker takes two descriptors.

    Returns:
        What was done, for the log.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _WANTED_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return f"open files: limit raised from {soft} to {wanted}"
    return f"open files: limit {soft}"


def check_asked(job: Job, validation: SampleSource | None, settings: RunSettings) -> None:
    """Refuse settings that ask for metrics of a job that has none.

    Raises:
        SettingsError: they do.
    """
    if validation is not None or overrides(job, "evaluate"):
        return
    if settings.until is not None or settings.best is not None or settings.eval_every:
        option = "until" if settings.until is not None else "eval-every" if settings.best is None else "best"
        name = type(job).__name__
        raise SettingsError(f"{option} is set, but job {name} has no evaluate() or validation(): expected one")


def check_followed(job: Job, updater: Updater, validation_tasks: int) -> None:
    """Refuse a learning rate that follows a metric which is not measured between two rounds.

    Raises:
        SettingsError: it does.
    """
    if updater.follows_metric and not validation_tasks:
        raise SettingsError(
            f"plateau_metric is {job.plateau_metric!r}, but workers do not measure it between rounds: "
            f"expected validation(), validate(), no --eval-device and a policy other than {', '.join(ASYNCHRONOUS)}"
        )


def planned_validation(validation: SampleSource | None, settings: RunSettings) -> int:
    """Say by how many tasks workers measure a version.

    Where rounds never wait for all (asynchronous policies) nobody can be asked between two of them, and who names a
    device wants it done there: the server measures.
    """
    if validation is None or settings.policy in ASYNCHRONOUS or settings.eval_device is not None:
        return 0
    return validation_tasks(settings.micro_batch, len(validation))


def measure_of(
    job: Job, dataset: SampleSource, validation: SampleSource | None, settings: RunSettings
) -> Measure | None:
    """Give what measures a model of a job in this process; None: the job has nothing that does."""
    seed = settings.seed
    if validation is not None:
        tasks = validation_tasks(settings.micro_batch, len(validation))
        loader = TaskLoader(job, dataset, seed, settings.micro_batch, validation=validation)
        return lambda module: validate(job, module, loader, tasks, seed)
    return partial(evaluate, job) if overrides(job, "evaluate") else None


def _evaluation_copy(job: Job, settings: RunSettings, device: torch.device) -> FlatModel:
    where = device if settings.eval_device is None else parse_device(settings.eval_device)
    return build_model(job, settings.seed, where)


def _stages(settings: RunSettings, stage_bytes: int) -> int:
    if settings.push_memory_bytes is None:
        return 2
    stages = settings.push_memory_bytes // stage_bytes
    if stages < 2:
        raise SettingsError(
            f"push-memory-bytes is {settings.push_memory_bytes}: expected at least {2 * stage_bytes}, two contributions"
        )
    return stages
