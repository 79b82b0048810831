"""Writes what `paceline check` found out: lines for people, and a document. No torch."""

from __future__ import annotations

import dataclasses
import math
import textwrap
from collections.abc import Iterator
from typing import Any

from paceline.cli.check_advice import (
    TRANSFER_SHARE,
    RoundCosts,
    computing_s,
    needed_rate,
    suggest,
    transfer_share,
)
from paceline.cli.check_findings import Examined, Findings
from paceline.cli.commands import RunCommand
from paceline.coordination.policies import ASYNCHRONOUS
from paceline.link_rates import written_bytes, written_rate

# What the suggestion reckons with where nobody says what the links carry: Gigabit Ethernet.
USUAL_LINK = 1e9 / 8.0
_LABEL = 12


def costs_of(settings: RunCommand, found: Examined) -> RoundCosts | None:
    """Put together what a round costs; None: not all of it is known."""
    if found.task_s is None or found.pull_bytes is None or found.push_bytes is None or found.n_samples is None:
        return None
    return RoundCosts(
        # A clock's tick at least, so that nothing is divided by zero.
        task_s=max(found.task_s, 1e-9),
        update_s=found.update_s or 0.0,
        worker_bytes=found.pull_bytes + found.push_bytes,
        workers=settings.workers,
        tasks=settings.tasks,
        epoch_tasks=found.n_samples / settings.micro_batch,
    )


def lines(settings: RunCommand, found: Examined, findings: Findings, link: float | None) -> Iterator[tuple[str, str]]:
    """Write the report: what each line is about (or nothing), and the line. Problems are not in it."""
    rows = [*_what_it_is(settings, found), *_what_it_takes(found), *_what_travels(settings, found, link)]
    yield "job", f"{settings.job}, seed {settings.seed}, on {found.device}, {_counted(settings.threads, 'thread')}"
    yield from rows
    for note in (*findings.notes, *_of_the_policy(settings)):
        yield "note", note


def laid_out(label: str, text: str, columns: int) -> str:
    """Lay a line of the report out for a terminal of so many columns; 0: on one line, as files like it."""
    if columns < 2 * _LABEL:
        return f"{label:<{_LABEL}}{text}"
    rows = textwrap.wrap(text, columns - _LABEL, break_long_words=False, break_on_hyphens=False) or [""]
    return "\n".join(f"{label if not number else '':<{_LABEL}}{row}" for number, row in enumerate(rows))


def document(settings: RunCommand, found: Examined, findings: Findings, link: float | None) -> dict[str, Any]:
    """Give the same as JSON values; see docs/check.md."""
    costs = costs_of(settings, found)
    values: dict[str, Any] = {"job": settings.job, "seed": settings.seed, "micro_batch": settings.micro_batch}
    values |= {"tasks_per_round": settings.tasks, "workers": settings.workers, "sums": settings.sums}
    values |= {name: value for name, value in dataclasses.asdict(found).items() if name != "metrics"}
    values["metrics"] = {name: _number(value) for name, value in found.metrics.items()}
    values["loss"] = _number(found.loss)
    suggestion = None if costs is None else suggest(costs, link or USUAL_LINK)
    values["epoch_tasks"] = None if costs is None else costs.epoch_tasks
    values["needed_bytes_per_s"] = None if costs is None else needed_rate(costs)
    values["link_bytes_per_s"] = link
    values["transfer_share"] = None if costs is None or link is None else transfer_share(costs, link)
    values["suggested_tasks"] = None if suggestion is None else suggestion.tasks
    values["suggested_because"] = None if suggestion is None else suggestion.reason
    values["notes"] = findings.notes
    values["problems"] = [problem.message for problem in findings.problems]
    return values


def _what_it_is(settings: RunCommand, found: Examined) -> Iterator[tuple[str, str]]:
    if found.n_samples is not None:
        epoch = found.n_samples / settings.micro_batch
        yield "data", f"{found.n_samples} samples: {epoch:.4g} tasks of {settings.micro_batch} samples an epoch"
    if found.parameters is not None:
        trained = "all" if found.parameters == found.trained_parameters else f"{found.trained_parameters:,}"
        yield "model", f"{found.model} of {found.parameters:,} parameters, {trained} of them trained"
    if found.update_s is not None:
        scheduler = f" with {found.scheduler}" if found.scheduler else ""
        state = ", ".join(f"{written_bytes(count)} of {part}" for part, count in found.state_bytes.items() if count)
        yield "optimizer", f"{found.optimizer}{scheduler}; its state in a checkpoint: {state or 'no tensors'}"
    if found.loss is not None:
        metrics = "".join(f", {name} {value:.4g}" for name, value in found.metrics.items())
        yield "learning", f"loss {found.loss:.4g} at the start{metrics and f'; after one update{metrics}'}"


def _what_it_takes(found: Examined) -> Iterator[tuple[str, str]]:
    if found.peak_bytes is not None:
        worker = "" if found.worker_bytes is None else f"{written_bytes(found.worker_bytes)} in a worker's part, "
        before = f"{written_bytes(found.before_bytes)} before anything was built"
        yield "memory", f"at most {written_bytes(found.peak_bytes)} ({worker}{before})"
    if found.first_s is not None and found.task_s is not None and found.load_s is not None:
        share = found.load_s / found.task_s if found.task_s else 0.0
        yield "time", f"first task {found.first_s:.3g} s, then {found.task_s:.3g} s a task, {share:.0%} of it loading"
    if found.update_s is not None:
        evaluation = "" if found.evaluation_s is None else f", evaluation {found.evaluation_s:.3g} s"
        yield "", f"update {found.update_s:.3g} s{evaluation}"
    if found.loaders is not None:
        reason = "samples are there in no time" if not found.loaders else "so that computing need not wait for samples"
        yield "loaders", f"{found.loaders} for each worker: {reason}"
    if found.same_bits is not None:
        yield "same bits", f"{'yes' if found.same_bits else 'NO'}: task 0 was computed twice, with another in between"


def _what_travels(settings: RunCommand, found: Examined, link: float | None) -> Iterator[tuple[str, str]]:
    if found.pull_bytes is None or found.push_bytes is None or found.constant_bytes is None:
        return
    once = f"; {written_bytes(found.constant_bytes)} once, on joining" if found.constant_bytes else ""
    pulled, pushed = written_bytes(found.pull_bytes), written_bytes(found.push_bytes)
    yield "traffic", f"each round each worker pulls {pulled} and pushes {pushed}{once}"
    costs = costs_of(settings, found)
    if costs is None:
        return
    needed, tasks, workers = needed_rate(costs), _counted(settings.tasks, "task"), _counted(settings.workers, "worker")
    yield (
        "network",
        (
            f"{tasks} a round over {workers} like this one: transfer stays under {TRANSFER_SHARE:.0%} of a round from "
            f"{written_rate(needed)} on for each worker, {written_rate(settings.workers * needed)} for the server"
        ),
    )
    if link is not None:
        share, round_s = transfer_share(costs, link), computing_s(costs, costs.tasks) + costs.worker_bytes / link
        yield "", f"at {written_rate(link)} transfer takes {share:.1%} of a round of {round_s:.3g} s"
    suggestion = suggest(costs, link or USUAL_LINK)
    now = f"--tasks {settings.tasks}, as now, is enough" if settings.tasks >= suggestion.tasks else ""
    yield "tasks", f"{now or f'--tasks {suggestion.tasks}'}: {suggestion.reason}"
    if link is None:
        yield "", f"links of {written_rate(USUAL_LINK)} are assumed; --link RATE says otherwise"


def _of_the_policy(settings: RunCommand) -> Iterator[str]:
    if settings.policy in ASYNCHRONOUS:
        yield (
            f"policy {settings.policy} takes results one by one: workers pull and push for each, and what is said"
            " of rounds does not hold"
        )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
