"""Tries a job out on this machine: builds it, computes tasks, updates and evaluates it, and notes all that is wrong.

Every step is the one that a server or a worker takes, with their code; here they share one process and one model.
"""

from __future__ import annotations

import resource
import sys

import torch

from paceline.cli.check_findings import Examined, Findings, Trial
from paceline.cli.check_server import measure, time_update, update
from paceline.cli.check_worker import compute, load_elsewhere
from paceline.cli.commands import RunCommand
from paceline.fingerprint import fingerprint
from paceline.flat import FlatModel, build_model
from paceline.job import SampleSource
from paceline.layout import contribution_layout
from paceline.loading import build_dataset, build_validation, load_job
from paceline.server.preparation import check_asked, measure_of, parse_device, planned_validation
from paceline.streams import ShardCache, use_cache
from paceline.weights import load_init


def examine(settings: RunCommand) -> tuple[Examined, Findings]:
    """Try a job out under the settings of a run.

    Raises:
        SettingsError: the device is not there.
    """
    device = parse_device(settings.device)
    torch.set_num_threads(settings.threads)
    found, findings = Examined(device=str(device)), Findings()
    with findings.step():
        job = load_job(settings.job, settings.data)
        found.kind = type(job).__name__
        _try_out(Trial(settings, job, found, findings), device)
    return found, findings


def _try_out(trial: Trial, device: torch.device) -> None:
    settings, job, found, findings = trial.settings, trial.job, trial.found, trial.findings
    found.before_bytes = _peak_bytes(device)
    dataset = _build_dataset(trial)
    validation: SampleSource | None = None
    with findings.step():
        validation = build_validation(job, settings.seed)
        check_asked(job, validation, settings)
    flat = _build_model(trial, device)
    if flat is None:
        return
    one = None
    if dataset is not None:
        with findings.step():
            fingerprint(job, flat.layout, dataset, settings.seed, validation)
        one = compute(trial, dataset, flat)
        found.worker_bytes = _peak_bytes(device)
    updater = update(trial, flat, one, planned_validation(validation, settings))
    # A loader of validation data wants to be told of the others too.
    measured = measure_of(job, () if dataset is None else dataset, validation, settings)
    measure(trial, flat, measured, updater)
    found.peak_bytes = _peak_bytes(device)
    if updater is not None and one is not None:
        time_update(found, flat, updater, one)
    if dataset is not None and one is not None:
        load_elsewhere(trial, dataset)


def _build_dataset(trial: Trial) -> SampleSource | None:
    settings = trial.settings
    with trial.findings.step():
        dataset = build_dataset(trial.job, settings.seed, settings.micro_batch, settings.partition)
        use_cache(ShardCache(settings.cache, settings.cache_bytes), dataset)
        trial.found.n_samples = len(dataset)
        return dataset
    return None


def _build_model(trial: Trial, device: torch.device) -> FlatModel | None:
    settings, found = trial.settings, trial.found
    with trial.findings.step():
        flat = build_model(trial.job, settings.seed, device)
        if settings.init is not None:
            load_init(flat, settings.init)
        parameters = list(flat.module.parameters())
        found.model = type(flat.module).__name__
        found.parameters = sum(parameter.numel() for parameter in parameters)
        found.trained_parameters = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
        found.pull_bytes = flat.layout.version_nbytes
        found.constant_bytes = flat.layout.nbytes - flat.layout.version_nbytes
        found.push_bytes = contribution_layout(flat.layout, settings.sums).nbytes
        return flat
    return None


def _peak_bytes(device: torch.device) -> int:
    """Give the most memory that was in use so far: of the device, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
