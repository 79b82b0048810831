"""The ledger: an SQLite file that says what every round, lease and worker did. Read it with ledger_reader.py.

A round never waits for the disk: the event loop only appends to a queue, and one thread writes it, a transaction every
COMMIT_EVERY_S or COMMIT_ROWS rows. Each transaction holds a prefix of what happened, in order, so that the file is a
consistent cut whenever the process dies. WAL with synchronous=NORMAL: a killed process loses what it had not
committed (at most COMMIT_EVERY_S); a power cut may lose the last commits too, and damages nothing.

Tables (docs/run-directory.md describes each column): meta, rounds, leases, workers, events. Together the kept task ids,
versions and weights of the leases allow a replay in a single process; next_tasks, returned and the workers' accounts of
the last round are the data position and statistics.
"""

from __future__ import annotations

import json
import math
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

import structlog

from paceline.coordination.effects import Effect, Finish, LeaseRecord, RoundRecord, Warn, WorkerChanged
from paceline.coordination.events import Hello
from paceline.errors import RunFailedError
from paceline.server.ranges import format_ranges
from paceline.version import __version__

SCHEMA = 2
COMMIT_EVERY_S = 0.2
COMMIT_ROWS = 256

_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE rounds (
    round INTEGER PRIMARY KEY, version INTEGER NOT NULL, allocation TEXT NOT NULL, reason TEXT NOT NULL,
    opened_s REAL NOT NULL, seconds REAL NOT NULL, worker_s REAL NOT NULL, wasted_s REAL NOT NULL, loss REAL,
    samples INTEGER NOT NULL, tasks_used INTEGER NOT NULL, next_tasks TEXT NOT NULL, returned TEXT NOT NULL,
    workers TEXT NOT NULL, divisor REAL, state_crc32c INTEGER);
CREATE TABLE leases (
    place INTEGER PRIMARY KEY, lease INTEGER NOT NULL UNIQUE, worker TEXT NOT NULL, incarnation TEXT NOT NULL,
    round INTEGER NOT NULL, version INTEGER NOT NULL, granted TEXT NOT NULL, kept TEXT NOT NULL, dropped TEXT NOT NULL,
    task_seconds TEXT NOT NULL, loss_sums TEXT NOT NULL, samples TEXT NOT NULL, seconds REAL NOT NULL,
    wasted_s REAL NOT NULL, weight REAL NOT NULL, verdict TEXT NOT NULL);
CREATE INDEX leases_by_round ON leases (round);
CREATE TABLE workers (
    name TEXT NOT NULL, incarnation TEXT NOT NULL, device TEXT, address TEXT, pace REAL, joined_s REAL, left_s REAL,
    state TEXT, PRIMARY KEY (name, incarnation)) WITHOUT ROWID;
CREATE TABLE events (at_s REAL NOT NULL, kind TEXT NOT NULL, worker TEXT, incarnation TEXT, text TEXT NOT NULL);
"""

_INSERT_WORKER = "INSERT INTO workers VALUES (?, ?, ?, ?, ?, NULL, NULL, NULL) ON CONFLICT DO NOTHING"
_UPDATE_WORKER = """
INSERT INTO workers VALUES (?, ?, NULL, NULL, NULL, ?, ?, ?) ON CONFLICT DO UPDATE
SET joined_s = coalesce(joined_s, excluded.joined_s), left_s = excluded.left_s, state = excluded.state
"""

Item: TypeAlias = RoundRecord | LeaseRecord | WorkerChanged | Warn | Finish | Hello
Statement: TypeAlias = tuple[str, tuple[Any, ...]]

# After these states of a WorkerChanged the incarnation is gone.
_GONE = ("lost", "left")


class Ledger:
    """Writes a new ledger. `start` and `close` belong together; `observe` and `hello` to one thread.

    Args:
        path: of the file, which must not exist.
        settings_json: of the run; kept in `meta`.
        life: of the server: 1, and one more at each resume.
    """

    def __init__(self, path: Path, settings_json: str, life: int = 1) -> None:
        self._path = path
        self._settings_json = settings_json
        self._life = life
        self._queue: deque[tuple[Item, float]] = deque()
        self._wake = threading.Event()
        self._closing = False
        self._error: Exception | None = None
        self._connection: sqlite3.Connection | None = None
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)

    def start(self) -> None:
        """Make the file and begin to write.

        Raises:
            RunFailedError: the file cannot be made.
        """
        try:
            self._connection = _create(self._path, self._settings_json, self._life)
        except sqlite3.Error as error:
            raise self._failed(error) from error
        self._thread.start()

    def observe(self, effect: Effect, now_s: float) -> None:
        """Take one effect down; those that the ledger does not keep are passed over. Never waits."""
        if type(effect) in _STATEMENTS:
            self._put(effect, now_s)  # type: ignore[arg-type]  # the table's keys are the members of Item

    def hello(self, hello: Hello, now_s: float) -> None:
        """Take down who a worker is, when it says hello; also if it is refused afterwards (its state stays empty)."""
        self._put(hello, now_s)

    def close(self) -> None:
        """Write what is left and close the file.

        Raises:
            RunFailedError: something could not be written, now or before.
        """
        self._closing = True
        self._wake.set()
        self._thread.join()
        if self._error is not None:
            raise self._failed(self._error) from self._error

    def _put(self, item: Item, now_s: float) -> None:
        if self._error is None:
            self._queue.append((item, now_s))
            if len(self._queue) >= COMMIT_ROWS:
                self._wake.set()

    def _run(self) -> None:
        connection = self._connection
        assert connection is not None  # start() makes it before the thread
        try:
            closing = False
            while not closing:
                self._wake.wait(COMMIT_EVERY_S)
                self._wake.clear()
                closing = self._closing  # read before the queue: what was put before close() is written
                self._commit(connection)
            _fold(connection)
        except Exception as error:  # whatever it is must not vanish with the thread
            self._error = error
            self._queue.clear()
            structlog.get_logger().error("ledger-failed", path=str(self._path), error=str(error))
        finally:
            connection.close()

    def _commit(self, connection: sqlite3.Connection) -> None:
        with connection:
            for _ in range(len(self._queue)):  # and not what comes meanwhile: a transaction must end
                item, now_s = self._queue.popleft()
                for statement, values in _STATEMENTS[type(item)](item, now_s):
                    connection.execute(statement, values)

    def _failed(self, error: Exception) -> RunFailedError:
        return RunFailedError(f"ledger {str(self._path)!r} could not be written: {error}")


def _create(path: Path, settings_json: str, life: int) -> sqlite3.Connection:
    connection = sqlite3.connect(path, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.executescript(_TABLES)
    meta = {"schema": str(SCHEMA), "paceline": __version__, "life": str(life), "settings": settings_json}
    with connection:
        connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
    return connection


def _fold(connection: sqlite3.Connection) -> None:
    """Make one file of the three, so that a finished run can be copied; not while somebody reads it."""
    connection.execute("PRAGMA busy_timeout=0")
    try:
        connection.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.OperationalError:
        pass


def _insert(table: str, values: Sequence[Any]) -> Statement:
    return f"INSERT INTO {table} VALUES ({','.join('?' * len(values))})", tuple(values)


def _round(record: RoundRecord, now_s: float) -> list[Statement]:
    wasted_s = sum(worker.wasted_s for worker in record.workers)
    values = (
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
    )
    return [_insert("rounds", values)]


def _lease(record: LeaseRecord, now_s: float) -> list[Statement]:
    values = (
        None,  # the next place
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
        record.seconds,
        record.wasted_s,
        record.weight,
        record.verdict.value,
    )
    return [_insert("leases", values)]


def _hello(hello: Hello, now_s: float) -> list[Statement]:
    return [(_INSERT_WORKER, (hello.name, hello.incarnation, hello.device, hello.address, hello.pace))]


def _worker(change: WorkerChanged, now_s: float) -> list[Statement]:
    left_s = now_s if change.state in _GONE else None
    return [
        (_UPDATE_WORKER, (change.name, change.incarnation, now_s, left_s, change.state)),
        _insert("events", (now_s, change.state, change.name, change.incarnation, change.reason)),
    ]


def _warning(warning: Warn, now_s: float) -> list[Statement]:
    return [_insert("events", (now_s, "warning", None, None, warning.text))]


def _finish(finish: Finish, now_s: float) -> list[Statement]:
    return [_insert("events", (now_s, finish.outcome.value, None, None, finish.reason))]


_STATEMENTS: dict[type, Callable[[Any, float], list[Statement]]] = {
    RoundRecord: _round,
    LeaseRecord: _lease,
    Hello: _hello,
    WorkerChanged: _worker,
    Warn: _warning,
    Finish: _finish,
}
