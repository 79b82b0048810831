"""What the ledger's tables are, and the rows that effects of the coordinator become."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, TypeAlias

from paceline.coordination.effects import Finish, LeaseRecord, RoundRecord, Warn, WorkerChanged
from paceline.coordination.events import Hello
from paceline.server.ranges import format_ranges

SCHEMA: Final = 6

TABLES: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE lives (
    life INTEGER PRIMARY KEY, resumed_from INTEGER, began TEXT NOT NULL, paceline TEXT NOT NULL,
    settings TEXT NOT NULL);
CREATE TABLE rounds (
    place INTEGER PRIMARY KEY, life INTEGER NOT NULL, round INTEGER NOT NULL, version INTEGER NOT NULL,
    allocation TEXT NOT NULL, reason TEXT NOT NULL, opened_s REAL NOT NULL, seconds REAL NOT NULL,
    worker_s REAL NOT NULL, wasted_s REAL NOT NULL, loss REAL, samples INTEGER NOT NULL, tasks_used INTEGER NOT NULL,
    next_tasks TEXT NOT NULL, returned TEXT NOT NULL, workers TEXT NOT NULL, divisor REAL, state_crc32c INTEGER,
    means TEXT NOT NULL, skipped INTEGER NOT NULL, void INTEGER);
CREATE UNIQUE INDEX rounds_by_number ON rounds (round) WHERE void IS NULL;
CREATE TABLE leases (
    place INTEGER PRIMARY KEY, life INTEGER NOT NULL, lease INTEGER NOT NULL UNIQUE, worker TEXT NOT NULL,
    incarnation TEXT NOT NULL, round INTEGER NOT NULL, version INTEGER NOT NULL, granted TEXT NOT NULL,
    kept TEXT NOT NULL, dropped TEXT NOT NULL, task_seconds TEXT NOT NULL, loss_sums TEXT NOT NULL,
    samples TEXT NOT NULL, micro_steps TEXT, seconds REAL NOT NULL, wasted_s REAL NOT NULL, weight REAL NOT NULL,
    verdict TEXT NOT NULL, void INTEGER);
CREATE INDEX leases_by_round ON leases (round) WHERE void IS NULL;
CREATE TABLE evaluations (
    place INTEGER PRIMARY KEY, life INTEGER NOT NULL, round INTEGER NOT NULL, at_s REAL NOT NULL,
    metrics TEXT NOT NULL, void INTEGER);
CREATE UNIQUE INDEX evaluations_by_round ON evaluations (round) WHERE void IS NULL;
CREATE TABLE workers (
    life INTEGER NOT NULL, name TEXT NOT NULL, incarnation TEXT NOT NULL, device TEXT, address TEXT, pace REAL,
    joined_s REAL, left_s REAL, state TEXT, PRIMARY KEY (life, name, incarnation)) WITHOUT ROWID;
CREATE TABLE events (
    life INTEGER NOT NULL, at_s REAL NOT NULL, kind TEXT NOT NULL, worker TEXT, incarnation TEXT, text TEXT NOT NULL);
"""

_INSERT_WORKER = "INSERT INTO workers VALUES (?, ?, ?, ?, ?, ?, NULL, NULL, NULL) ON CONFLICT DO NOTHING"
_UPDATE_WORKER = """
INSERT INTO workers VALUES (?, ?, ?, NULL, NULL, NULL, ?, ?, ?) ON CONFLICT DO UPDATE
SET joined_s = coalesce(joined_s, excluded.joined_s), left_s = excluded.left_s, state = excluded.state
"""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The metrics of the version that a round made, by name."""

    round: int
    metrics: Mapping[str, float]


Item: TypeAlias = RoundRecord | LeaseRecord | Evaluation | WorkerChanged | Warn | Finish | Hello
Statement: TypeAlias = tuple[str, tuple[Any, ...]]

# After these states of a WorkerChanged the incarnation is gone.
_GONE = ("lost", "left")


def _insert(table: str, values: Sequence[Any]) -> Statement:
    return f"INSERT INTO {table} VALUES ({','.join('?' * len(values))})", tuple(values)


def _round(record: RoundRecord, now_s: float, life: int) -> list[Statement]:
    wasted_s = sum(worker.wasted_s for worker in record.workers)
    values = (
        None,  # the next place
        life,
        record.round,
        record.version,
        json.dumps(dict(record.allocation)),
        record.reason,
        record.opened_s,
        record.seconds,
        wasted_s + sum(worker.used_s for worker in record.workers),
        wasted_s,
        record.loss if math.isfinite(record.loss) else None,
        record.samples,
        record.tasks_used,
        " ".join(map(str, record.next_tasks)),
        format_ranges(record.returned),
        json.dumps([asdict(worker) for worker in record.workers]),
        record.divisor,
        record.state_crc32c,
        json.dumps(dict(record.means)),
        int(record.skipped),
        None,
    )
    return [_insert("rounds", values)]


def _lease(record: LeaseRecord, now_s: float, life: int) -> list[Statement]:
    values = (
        None,  # the next place
        life,
        record.lease,
        record.worker,
        record.incarnation,
        record.round,
        record.version,
        format_ranges(record.granted),
        format_ranges(record.kept),
        format_ranges(record.dropped),
        json.dumps([result.seconds for result in record.results]),
        json.dumps([result.loss_sum for result in record.results]),
        json.dumps([result.samples for result in record.results]),
        _micro_steps(record),
        record.seconds,
        record.wasted_s,
        record.weight,
        record.verdict.value,
        None,
    )
    return [_insert("leases", values)]


def _micro_steps(record: LeaseRecord) -> str | None:
    steps = [result.micro_steps for result in record.results]
    return json.dumps(steps) if any(steps) else None


def _evaluation(evaluation: Evaluation, now_s: float, life: int) -> list[Statement]:
    known = {name: value if math.isfinite(value) else None for name, value in evaluation.metrics.items()}
    return [
        # A life that goes on from a checkpoint may measure its version once more.
        ("UPDATE evaluations SET void = ? WHERE void IS NULL AND round = ?", (life, evaluation.round)),
        _insert("evaluations", (None, life, evaluation.round, now_s, json.dumps(known), None)),
    ]


def _hello(hello: Hello, now_s: float, life: int) -> list[Statement]:
    return [(_INSERT_WORKER, (life, hello.name, hello.incarnation, hello.device, hello.address, hello.pace))]


def _worker(change: WorkerChanged, now_s: float, life: int) -> list[Statement]:
    left_s = now_s if change.state in _GONE else None
    return [
        (_UPDATE_WORKER, (life, change.name, change.incarnation, now_s, left_s, change.state)),
        _insert("events", (life, now_s, change.state, change.name, change.incarnation, change.reason)),
    ]


def _warning(warning: Warn, now_s: float, life: int) -> list[Statement]:
    return [_insert("events", (life, now_s, "warning", None, None, warning.text))]


def _finish(finish: Finish, now_s: float, life: int) -> list[Statement]:
    return [_insert("events", (life, now_s, finish.outcome.value, None, None, finish.reason))]


STATEMENTS: dict[type, Callable[[Any, float, int], list[Statement]]] = {
    RoundRecord: _round,
    LeaseRecord: _lease,
    Evaluation: _evaluation,
    Hello: _hello,
    WorkerChanged: _worker,
    Warn: _warning,
    Finish: _finish,
}
"""By the type of an item: what it becomes, when it happened in which life."""
