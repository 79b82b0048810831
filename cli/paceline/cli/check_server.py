"""The server's part of `paceline check`: an update and an evaluation with the server's own code."""

from __future__ import annotations

import contextlib
from time import monotonic

import torch

from paceline.cli.check_findings import Examined, Findings, Trial, named
from paceline.cli.check_worker import TaskSum
from paceline.errors import RunFailedError
from paceline.flat import FlatModel, build_model
from paceline.job import overrides
from paceline.server.evaluations import Measure
from paceline.server.preparation import check_followed, parse_device
from paceline.server.rehearsal import packed_bytes, rehearse
from paceline.settings import NEVER
from paceline.update import Updater


def update(trial: Trial, flat: FlatModel, one: TaskSum | None, validation_tasks: int) -> Updater | None:
    """Step the model, and look at what a checkpoint would hold.

    Args:
        one: the sum; None: there is none, and only the optimizer and its state are looked at.
        validation_tasks: that workers would measure a version by.

    Returns:
        What made the update; None: nothing did.
    """
    job, found, findings = trial.job, trial.found, trial.findings
    with findings.step("the update"):
        if one is None:
            rehearse(job, flat)
            return None
        updater = Updater(job, flat, trial.settings.seed, trial.settings.precision)
        found.optimizer = type(updater.optimizer).__name__
        found.scheduler = "" if updater.scheduler is None else type(updater.scheduler).__name__
        check_followed(job, updater, validation_tasks)
        _note_left_out(flat, updater, findings)
        begun = monotonic()
        updater.apply(one.total, float(one.samples), one.samples, one.loss)
        _wait_for(flat)
        found.update_s = monotonic() - begun
        broken = flat.non_finite()
        if broken:
            raise RunFailedError(f"the update to version 1 made {named(broken)} not finite")
        if trial.settings.interval() != NEVER:
            found.state_bytes = packed_bytes(updater)
        return updater
    return None


def time_update(found: Examined, flat: FlatModel, updater: Updater, one: TaskSum) -> None:
    """Time another update, since the first one makes the optimizer's state; its gradient is zero."""
    one.total.zero_()
    begun = monotonic()
    # A scheduler may have an end: then the time of the first one stays.
    with contextlib.suppress(RunFailedError):
        updater.apply(one.total, float(one.samples), one.samples, one.loss)
        _wait_for(flat)
        found.update_s = monotonic() - begun


def measure(trial: Trial, flat: FlatModel, measure_model: Measure | None, updater: Updater | None) -> None:
    """Measure a copy of the model: by evaluate(), or on all validation data, as workers do.

    Args:
        measure_model: measures it; None: the job has nothing that does.
        updater: made the version; None: none was made.
    """
    settings, job, found = trial.settings, trial.job, trial.found
    if measure_model is None:
        return
    with trial.findings.step("validate()" if overrides(job, "validate") else "evaluate()"):
        device = flat.device if settings.eval_device is None else parse_device(settings.eval_device)
        copy = build_model(job, settings.seed, device)
        copy.copy_from(flat)
        begun = monotonic()
        found.metrics = dict(measure_model(copy.module))
        found.evaluation_s = monotonic() - begun
        wanted = settings.best_by()
        if wanted is not None and wanted[0] not in found.metrics:
            known = ", ".join(sorted(found.metrics)) or "nothing"
            raise RunFailedError(f"--best or --until names metric {wanted[0]!r}, but the job measures {known}")
        if updater is not None:
            updater.measured(found.metrics)


def _wait_for(flat: FlatModel) -> None:
    """Wait until the device has done all it was given; before a clock is stopped."""
    if flat.device.type == "cuda":
        torch.cuda.synchronize(flat.device)


def _note_left_out(flat: FlatModel, updater: Updater, findings: Findings) -> None:
    held = {id(parameter) for group in updater.optimizer.param_groups for parameter in group["params"]}
    left = [name for name, p in flat.module.named_parameters() if p.requires_grad and id(p) not in held]
    if left:
        findings.notes.append(
            f"{named(left)} of the model is not in the optimizer: it stays as it is, but its gradient travels;"
            " requires_grad_(False) takes it out"
        )
