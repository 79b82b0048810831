"""The ledger: an SQLite file that says what every round, lease and worker did. Read it with ledger_reader.py.

A round never waits for the disk: the event loop only appends to a queue, and one thread writes it, a transaction every
COMMIT_EVERY_S or COMMIT_ROWS rows. Each transaction holds a prefix of what happened, in order, so that the file is a
consistent cut whenever the process dies. WAL with synchronous=NORMAL: a killed process loses what it had not
committed (at most COMMIT_EVERY_S); a power cut may lose the last commits too, and damages nothing. `barrier` makes
sure of both, for checkpoints.

Where the disk is full, what happened waits in memory, up to WAITING_ROWS, and is written when there is room again.

Tables (docs/run-directory.md describes each column): meta, lives, rounds, leases, evaluations,
workers, events. Together the kept
task ids, versions and weights of the leases allow a replay in a single process. A server that goes on from a
checkpoint begins a new life; rows of what it does anew are void from then on, and stay.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import structlog

from paceline.coordination.effects import Effect
from paceline.coordination.events import Hello
from paceline.errors import RunFailedError
from paceline.server.durable import sync
from paceline.server.ledger_rows import SCHEMA, STATEMENTS, TABLES, Evaluation, Item
from paceline.version import __version__

COMMIT_EVERY_S = 0.2
COMMIT_ROWS = 256
# So many rows wait for room on the disk; about 1 KB each.
WAITING_ROWS = 200_000
# A full disk is tried again so often, and for so long when the run is over.
AGAIN_S = 1.0
CLOSE_LIMIT_S = 5.0


class Ledger:
    """Writes a ledger. `start` and `close` belong together; `observe` and `hello` to one thread.

    Args:
        path: of the file, which must not exist in life 1, and must later.
        settings_json: of this life.
        life: of the server: 1, and one more at each resume.
        resumed_from: the last round that stands; rows of later ones become void. None in life 1.

    Attributes:
        trouble: why rows wait at present; empty: they do not.
    """

    def __init__(self, path: Path, settings_json: str, life: int = 1, resumed_from: int | None = None) -> None:
        self.trouble = ""
        self._path = path
        self._settings_json = settings_json
        self._life = life
        self._resumed_from = resumed_from
        self._queue: deque[tuple[Item, float]] = deque()
        self._batch: list[tuple[Item, float]] = []
        self._taken = 0
        self._written = 0
        self._safe = 0
        self._changed = threading.Condition()
        self._wake = threading.Event()
        self._barrier = False
        self._closing = False
        self._error: Exception | None = None
        self._connection: sqlite3.Connection | None = None
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._log = structlog.get_logger()

    def start(self) -> None:
        """Make the file, or begin its next life, and begin to write.

        Raises:
            RunFailedError: that is not possible.
        """
        try:
            self._connection = self._open()
        except (sqlite3.Error, OSError) as error:
            raise self._failed(error) from error
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Rows that are not written yet."""
        return len(self._queue) + len(self._batch)

    def observe(self, effect: Effect, now_s: float) -> None:
        """Take one effect down; those that the ledger does not keep are passed over. Never waits."""
        if type(effect) in STATEMENTS:
            self._put(effect, now_s)  # type: ignore[arg-type]  # the table's keys are the members of Item

    def hello(self, hello: Hello, now_s: float) -> None:
        """Take down who a worker is, when it says hello; also if it is refused afterwards (its state stays empty)."""
        self._put(hello, now_s)

    def evaluated(self, round_number: int, metrics: Mapping[str, float], now_s: float) -> None:
        """Take down what the version that a round made was found to be."""
        self._put(Evaluation(round_number, metrics), now_s)

    def barrier(self, timeout_s: float) -> bool:
        """Wait until all that was taken down before is safe from a power cut; from any thread but the owner's.

        Returns:
            False if that was not possible in this time.
        """
        wanted = self._taken
        with self._changed:
            self._barrier = True
            self._wake.set()
            self._changed.wait_for(lambda: self._safe >= wanted or self._error is not None, timeout_s)
            return self._safe >= wanted and self._error is None

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

    # ---- inside ------------------------------------------------------------------------------------------------------

    def _put(self, item: Item, now_s: float) -> None:
        if self._error is None:
            self._queue.append((item, now_s))
            self._taken += 1
            if len(self._queue) >= COMMIT_ROWS:
                self._wake.set()

    def _open(self) -> sqlite3.Connection:
        if self._resumed_from is not None and not self._path.is_file():
            raise FileNotFoundError("it does not exist")
        connection = sqlite3.connect(self._path, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        began = datetime.now(tz=UTC).isoformat(timespec="seconds")
        with connection:
            connection.execute("BEGIN")  # tables and first rows are there together, or nothing is
            if self._resumed_from is None:
                for statement in TABLES.split(";"):
                    connection.execute(statement)
                meta = {"schema": str(SCHEMA), "paceline": __version__, "settings": self._settings_json}
                connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('life', ?)", (str(self._life),))
            row = (self._life, self._resumed_from, began, __version__, self._settings_json)
            connection.execute("INSERT INTO lives VALUES (?, ?, ?, ?, ?)", row)
            if self._resumed_from is not None:
                for table in ("rounds", "leases", "evaluations"):
                    void = f"UPDATE {table} SET void = ? WHERE void IS NULL AND round > ?"
                    connection.execute(void, (self._life, self._resumed_from))
        sync(self._path.parent)
        return connection

    def _run(self) -> None:
        connection = self._connection
        assert connection is not None  # start() makes it before the thread
        try:
            self._write(connection)
            _fold(connection)
        except Exception as error:  # whatever it is must not vanish with the thread
            self._queue.clear()
            self._batch.clear()
            self._log.error("ledger-failed", path=str(self._path), error=str(error))
            with self._changed:
                self._error = error
                self._changed.notify_all()
        finally:
            connection.close()

    def _write(self, connection: sqlite3.Connection) -> None:
        closed_s: float | None = None
        while True:
            self._wake.wait(AGAIN_S if self.trouble else COMMIT_EVERY_S)
            self._wake.clear()
            closing = self._closing  # read before the queue: what was put before close() is written
            if closing and closed_s is None:
                closed_s = time.monotonic()
            barrier, self._barrier = self._barrier, False
            try:
                self._commit(connection)
                if barrier:
                    self._make_safe()
            except (sqlite3.OperationalError, OSError) as error:
                connection.rollback()
                self._wait_for_room(error, closed_s)
                self._barrier = self._barrier or barrier
                continue
            if self.trouble:
                self.trouble = ""
                self._log.warning("ledger-caught-up", path=str(self._path))
            if closing:
                return

    def _commit(self, connection: sqlite3.Connection) -> None:
        for _ in range(len(self._queue)):  # and not what comes meanwhile: a transaction must end
            self._batch.append(self._queue.popleft())
        with connection:
            for item, now_s in self._batch:
                for statement, values in STATEMENTS[type(item)](item, now_s, self._life):
                    connection.execute(statement, values)
        self._written += len(self._batch)
        self._batch.clear()

    def _make_safe(self) -> None:
        log = self._path.with_name(f"{self._path.name}-wal")
        for path in (log, self._path):
            if path.exists():
                sync(path)
        with self._changed:
            self._safe = self._written
            self._changed.notify_all()

    def _wait_for_room(self, error: Exception, closed_s: float | None) -> None:
        """Bear it that the disk is full, as long as memory allows."""
        if closed_s is not None and time.monotonic() - closed_s > CLOSE_LIMIT_S:
            raise error
        if self.waiting > WAITING_ROWS:
            raise RunFailedError(f"{error}, and more than {WAITING_ROWS} rows wait") from error
        if not self.trouble:
            self._log.error("ledger-waits", path=str(self._path), error=str(error))
        self.trouble = str(error)

    def _failed(self, error: Exception) -> RunFailedError:
        return RunFailedError(f"ledger {str(self._path)!r} could not be written: {error}")


def _fold(connection: sqlite3.Connection) -> None:
    """Make one file of the three, so that a finished run can be copied; not while somebody reads it."""
    connection.execute("PRAGMA busy_timeout=0")
    try:
        connection.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.OperationalError:
        pass
