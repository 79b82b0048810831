"""The document that `paceline run --json FILE` writes: one run in one object. docs/run-json.md tells every field.

Later versions only add fields. Numbers that are not known, or not finite (JSON has no NaN), are null.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from paceline.coordination.effects import Outcome
from paceline.coordination.snapshot import Snapshot, WorkerSnapshot
from paceline.server.totals import Totals
from paceline.server.traffic import Traffic
from paceline.settings import RunSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What is known only when a run is over.

    Attributes:
        outcome, reason: how and why it ended.
        metrics: of the last evaluation.
        checkpoint: version of the newest, None where there is none.
        model: file with the final weights, None where they could not be saved.
        fingerprint: of those weights, see `fingerprint.model_fingerprint`.
    """

    outcome: Outcome
    reason: str
    metrics: Mapping[str, float]
    checkpoint: int | None
    model: Path | None
    fingerprint: str


def summary_document(
    settings: RunSettings, totals: Totals, traffic: Traffic, snapshot: Snapshot, ending: Ending
) -> dict[str, Any]:
    """Build the document.

    Args:
        snapshot: the coordinator at the end.
    """
    median_s, p90_s = np.percentile(totals.seconds, (50, 90)) if totals.rounds else (math.nan, math.nan)
    return {
        "policy": settings.policy,
        "rounds": totals.rounds,
        "skipped_updates": totals.skipped,
        "seed": settings.seed,
        "sums": settings.sums,
        "wall_s": totals.training_s,
        "round_s": {"median": _number(median_s), "p90": _number(p90_s)},
        "worker_s": totals.worker_s,
        "wasted_worker_s": totals.sum.wasted_s,
        "cost": _number(totals.cost(settings.price)),
        "tasks": {
            "planned": totals.sum.planned,
            "used": totals.sum.used,
            "wasted": totals.sum.wasted,
            "replanned": totals.sum.replanned,
        },
        "validation": {
            "tasks": totals.validation.tasks,
            "worker_s": totals.validation.worker_s,
            "seconds": totals.validation.seconds,
        },
        "staleness": {"mean": totals.staleness.mean, "max": totals.staleness.most},
        "bytes": {"pulled": traffic.pulled_bytes, "pushed": traffic.pushed_bytes},
        "workers": [_worker(worker, totals) for worker in snapshot.workers],
        "metrics": {name: _number(value) for name, value in ending.metrics.items()},
        "means": {name: [_number(value) for value in values] for name, values in sorted(totals.means.items())},
        "loss": [_number(loss) for loss in totals.losses],
        "checkpoint": ending.checkpoint,
        "model": None if ending.model is None else str(ending.model),
        "fingerprint": ending.fingerprint,
        "outcome": ending.outcome.value,
        "reason": ending.reason,
        "job": settings.job,
        "tasks_per_round": settings.tasks,
        "micro_batch": settings.micro_batch,
    }


def _worker(worker: WorkerSnapshot, totals: Totals) -> dict[str, Any]:
    sums = totals.workers.get(worker.name)
    return {
        "name": worker.name,
        "pace": worker.pace,
        "tasks": worker.tasks_done,
        "busy_s": worker.busy_s,
        "mean_task_s": _number(worker.mean_task_s),
        "radius_s": _number(worker.radius_s),
        "data_share": sums.data_share if sums is not None else 0.0,
    }


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
