"""Reads a ledger: of a finished run, of one that is going on, or of one whose server was killed."""

from __future__ import annotations

import contextlib
import json
import math
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from paceline.coordination.effects import LeaseRecord, LeaseVerdict, Outcome, RoundRecord, WorkerRecord
from paceline.coordination.events import TaskResult
from paceline.coordination.ids import Incarnation, LeaseId, TaskId, WorkerName
from paceline.errors import UsageError
from paceline.server.ledger_rows import SCHEMA
from paceline.server.ranges import parse_ranges
from paceline.version import __version__

# Leases whose contribution entered an update that was committed and stands.
_APPLIED = """(SELECT leases.* FROM leases JOIN rounds USING (round)
    WHERE kept != '' AND leases.void IS NULL AND rounds.void IS NULL)"""
_OUTCOMES = {outcome.value: outcome for outcome in Outcome}


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerLife:
    """One life of the server.

    Attributes:
        resumed_from: the last round of earlier lives that stands; None for the first life.
        began: ISO time, UTC.
        settings: JSON.
    """

    life: int
    resumed_from: int | None
    began: str
    paceline: str
    settings: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerWorker:
    """One incarnation, in one life of the server.

    Attributes:
        joined_s, state: None where it was refused.
        left_s: None while it is there.
    """

    life: int
    name: str
    incarnation: str
    device: str | None
    address: str | None
    pace: float | None
    joined_s: float | None
    left_s: float | None
    state: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEvent:
    """A change in a worker's life (`kind` is its state), a warning, or the end (`kind` is the outcome)."""

    life: int
    at_s: float
    kind: str
    worker: str | None
    incarnation: str | None
    text: str


class LedgerReader:
    """A ledger, opened for reading; a context manager.

    Raises:
        UsageError: no ledger there, or one of another paceline's schema.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise UsageError(f"ledger {str(path)!r} does not exist: expected a run directory's ledger.sqlite")
        try:
            self._connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        except sqlite3.DatabaseError as error:
            raise UsageError(f"ledger {str(path)!r} cannot be read: {error}") from error
        self._connection.row_factory = sqlite3.Row
        try:
            meta = self.meta()
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise UsageError(f"ledger {str(path)!r} cannot be read: {error}") from error
        if meta.get("schema") != str(SCHEMA):
            self._connection.close()
            found = f"schema {meta.get('schema')}, of paceline {meta.get('paceline')}"
            raise UsageError(f"ledger {str(path)!r} has {found}: this one, {__version__}, reads {SCHEMA}")

    def __enter__(self) -> LedgerReader:
        return self

    def __exit__(self, *exc: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def copy_to(self, path: Path) -> None:
        """Copy what is committed so far into a new file, without keeping the writer waiting."""
        with contextlib.closing(sqlite3.connect(path)) as copy:
            self._connection.backup(copy)

    def meta(self) -> dict[str, str]:
        """Give schema, paceline (its version), the present life and the settings of the first (JSON)."""
        return {row["key"]: row["value"] for row in self._connection.execute("SELECT key, value FROM meta")}

    def lives(self) -> list[LedgerLife]:
        """Give the lives of the server, in order."""
        return [LedgerLife(**dict(row)) for row in self._rows("SELECT * FROM lives ORDER BY life")]

    def outcome(self) -> Outcome | None:
        """Say how the last life ended; None: it goes on, or was killed."""
        kinds = ", ".join(f"'{kind}'" for kind in _OUTCOMES)
        last = f"life = (SELECT max(life) FROM lives) AND kind IN ({kinds}) ORDER BY rowid DESC LIMIT 1"
        for row in self._rows(f"SELECT kind FROM events WHERE {last}"):
            return _OUTCOMES[row["kind"]]
        return None

    def complete_to(self, number: int) -> bool:
        """Tell whether all rounds up to this one are there."""
        (count,) = next(self._rows("SELECT count(*) FROM rounds WHERE void IS NULL AND round <= ?", number))
        return bool(count == number)

    def rounds(self) -> list[RoundRecord]:
        """Give the committed rounds that stand, in order, as they were recorded."""
        return list(self.each_round())

    def each_round(self) -> Iterator[RoundRecord]:
        """The same, one at a time in memory."""
        for row in self._rows("SELECT * FROM rounds WHERE void IS NULL ORDER BY round"):
            yield _round(row)

    def rounds_with_leases(self) -> Iterator[tuple[RoundRecord, list[LeaseRecord]]]:
        """Give the rounds that stand, in order, each with the leases that ended in it; one at a time in memory."""
        for record in self.each_round():
            yield record, self.leases(record.round)

    def last_uses(self) -> dict[int, int]:
        """Give for each version that was still used after its next round the last committed round that used it."""
        query = f"SELECT version, max(round) AS last FROM {_APPLIED} GROUP BY version HAVING last > version + 1"
        return {row["version"]: row["last"] for row in self._rows(query)}

    def totals(self) -> tuple[int, int, int]:
        """Count the committed rounds, the tasks applied in them, and the versions that the stalest was behind."""
        rounds, tasks = next(self._rows("SELECT count(*), total(tasks_used) FROM rounds WHERE void IS NULL"))
        (staleness,) = next(self._rows(f"SELECT max(round - 1 - version) FROM {_APPLIED}"))
        return rounds, int(tasks), staleness or 0

    def leases(self, round_number: int | None = None) -> list[LeaseRecord]:
        """Give the leases that stand, of one round or of all, in the order in which they ended (and were added)."""
        query = "SELECT * FROM leases WHERE void IS NULL"
        if round_number is None:
            return [_lease(row) for row in self._rows(f"{query} ORDER BY place")]
        return [_lease(row) for row in self._rows(f"{query} AND round = ? ORDER BY place", round_number)]

    def evaluations(self) -> dict[int, dict[str, float]]:
        """Give the metrics of the versions that were measured and stand, by the round that made them, ascending."""
        rows = self._rows("SELECT round, metrics FROM evaluations WHERE void IS NULL ORDER BY round")
        return {
            row["round"]: {
                name: math.nan if value is None else value for name, value in json.loads(row["metrics"]).items()
            }
            for row in rows
        }

    def workers(self) -> list[LedgerWorker]:
        """Give every incarnation that said hello, by name, life and time of joining."""
        rows = self._rows("SELECT * FROM workers ORDER BY name, life, joined_s")
        return [LedgerWorker(**dict(row)) for row in rows]

    def events(self) -> list[LedgerEvent]:
        """Give what happened to workers, warnings and the end, in order."""
        return [LedgerEvent(**dict(row)) for row in self._rows("SELECT * FROM events ORDER BY rowid")]

    def task_ids_by_round(self) -> dict[int, list[TaskId]]:
        """Give the tasks that made each version, ascending, by round that stands: what a replay needs."""
        rounds = self._rows("SELECT round FROM rounds WHERE void IS NULL")
        tasks: dict[int, list[TaskId]] = {row["round"]: [] for row in rounds}
        for row in self._rows("SELECT round, kept FROM leases WHERE void IS NULL"):
            if row["round"] in tasks:
                tasks[row["round"]] += parse_ranges(row["kept"])
        return {number: sorted(ids) for number, ids in sorted(tasks.items())}

    def _rows(self, query: str, *values: int) -> Iterator[sqlite3.Row]:
        return iter(self._connection.execute(query, values))


def _round(row: sqlite3.Row) -> RoundRecord:
    return RoundRecord(
        round=row["round"],
        version=row["version"],
        allocation=tuple((WorkerName(name), tasks) for name, tasks in json.loads(row["allocation"]).items()),
        reason=row["reason"],
        opened_s=row["opened_s"],
        seconds=row["seconds"],
        loss=math.nan if row["loss"] is None else row["loss"],
        samples=row["samples"],
        tasks_used=row["tasks_used"],
        workers=tuple(WorkerRecord(**worker) for worker in json.loads(row["workers"])),
        next_tasks=tuple(map(int, row["next_tasks"].split())),
        returned=parse_ranges(row["returned"]),
        divisor=row["divisor"],
        state_crc32c=row["state_crc32c"],
        means=tuple(json.loads(row["means"]).items()),
        skipped=bool(row["skipped"]),
    )


def _lease(row: sqlite3.Row) -> LeaseRecord:
    kept = parse_ranges(row["kept"])
    columns: list[list[Any]] = [json.loads(row[name]) for name in ("task_seconds", "loss_sums", "samples")]
    columns.append([0] * len(kept) if row["micro_steps"] is None else json.loads(row["micro_steps"]))
    return LeaseRecord(
        lease=LeaseId(row["lease"]),
        worker=WorkerName(row["worker"]),
        incarnation=Incarnation(row["incarnation"]),
        round=row["round"],
        version=row["version"],
        granted=parse_ranges(row["granted"]),
        kept=kept,
        dropped=parse_ranges(row["dropped"]),
        results=tuple(
            TaskResult(task=task, seconds=seconds, loss_sum=loss_sum, samples=samples, micro_steps=micro_steps)
            for task, seconds, loss_sum, samples, micro_steps in zip(kept, *columns, strict=True)
        ),
        seconds=row["seconds"],
        wasted_s=row["wasted_s"],
        weight=row["weight"],
        verdict=LeaseVerdict(row["verdict"]),
    )
