"""Tells a run again from its ledger, to those who draw pictures of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from paceline.coordination.effects import Outcome, RoundRecord
from paceline.coordination.ids import WorkerName, in_order
from paceline.coordination.snapshot import Snapshot, WorkerSnapshot
from paceline.errors import UsageError
from paceline.server.history import History
from paceline.server.ledger_reader import LedgerReader, LedgerWorker
from paceline.server.past_run import PastRun
from paceline.server.picture import Picture
from paceline.server.status import Situation
from paceline.server.totals import Totals

Speeds = Mapping[WorkerName, tuple[float, float]]
"""Learned seconds per task and their confidence radius."""


def retell(
    reader: LedgerReader,
    history: History,
    *,
    last: int | None = None,
    heard: Callable[[RoundRecord], None] = lambda record: None,
) -> None:
    """Tell a history the rounds that stand, and their evaluations.

    Args:
        last: the last round to be told; None: all.
        heard: is given each round as the history takes it.
    """
    evaluations = reader.evaluations()
    for record in reader.each_round():
        if last is not None and record.round > last:
            break
        heard(history.add(record))
        if record.round in evaluations:
            history.evaluated(record.round, evaluations[record.round])


def retell_file(ledger: Path, history: History, last: int) -> None:
    """Tell a history what the ledger of an earlier life says up to this round.

    Raises:
        UsageError: the ledger cannot be read.
    """
    with LedgerReader(ledger) as reader:
        retell(reader, history, last=last)


def picture_of(run: PastRun) -> dict[str, Any]:
    """Give the document of a run that is over, or of one that goes on as it stands; see `picture.Picture`.

    Raises:
        UsageError: the ledger is damaged.
    """
    settings = run.beginning.settings
    totals, history = Totals(), History(settings.radius_constant())
    try:
        retell(run.ledger, history, heard=totals.observe)
        workers, events = run.ledger.workers(), run.ledger.events()
    except (sqlite3.DatabaseError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"ledger of run {str(run.path)!r} cannot be read: {error}") from error
    last = history.latest[-1] if history.latest else None
    endings = {outcome.value for outcome in Outcome}
    words = [event.text for event in events if event.kind in endings]
    snapshot = Snapshot(
        state="open" if run.outcome is None else run.outcome.value,
        situation=words[-1] if run.outcome is not None else "it goes on, or its server was killed",
        round=totals.version,
        version=totals.version,
        reason="" if last is None else last.reason,
        workers=_workers(workers, _by_name(history), last),
    )
    measured = run.evaluations[max(run.evaluations)] if run.evaluations else {}
    situation = Situation(
        rounds=settings.rounds or 0, elapsed_s=totals.training_s, run_dir=str(run.path), metrics=measured
    )
    return Picture(settings, totals, history).document(snapshot, situation)


def _by_name(history: History) -> Speeds:
    number = history.latest[-1].round if history.latest else 0
    pairs = history.learned(number).tolist()
    return {name: (mean_s, radius_s) for name, (mean_s, radius_s) in zip(history.learners, pairs, strict=True)}


def _workers(known: list[LedgerWorker], learned: Speeds, last: RoundRecord | None) -> tuple[WorkerSnapshot, ...]:
    allocation = {} if last is None else dict(last.allocation)
    # The latest of the incarnations that had a name.
    by_name = {WorkerName(worker.name): worker for worker in known if worker.joined_s is not None}
    rows = []
    for name in sorted(by_name.keys() | learned.keys() | allocation.keys(), key=in_order):
        worker = by_name.get(name)
        mean_s, radius_s = learned.get(name, (None, None))
        rows.append(
            WorkerSnapshot(
                name=name,
                state=(worker and worker.state) or "lost",
                device=(worker and worker.device) or "",
                address=(worker and worker.address) or "",
                tasks_done=0,
                busy_s=0.0,
                mean_task_s=mean_s,
                radius_s=radius_s,
                allocation=allocation.get(name, 0),
                pace=worker.pace if worker is not None else None,
            )
        )
    return tuple(rows)
