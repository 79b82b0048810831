"""Reads a run directory back: what was asked for, of which job, and what happened. Writes nothing into it.

The ledger is copied first (to a temporary file, in one read transaction), so that a run in progress goes on undisturbed
and a replay of hours sees one state of it.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from paceline.coordination.effects import LeaseRecord, Outcome, RoundRecord
from paceline.errors import PacelineError, ProtocolError, UsageError
from paceline.fingerprint import JobFingerprint
from paceline.server.ledger_reader import LedgerLife, LedgerReader
from paceline.server.rundir import FORMAT, LEDGER, MODEL, SETTINGS, WORKERS
from paceline.settings import RunSettings


@dataclass(frozen=True, slots=True)
class Beginning:
    """What settings.json says.

    Attributes:
        fingerprint: what every worker's job was held against.
        initial_model: fingerprint of the parameters that the run began with.
    """

    settings: RunSettings
    fingerprint: JobFingerprint
    initial_model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PastRun:
    """A run as its directory tells it.

    Attributes:
        outcome: None: it goes on, or its server was killed.
        lives: of its servers.
        model: its last weights, if it ended and they were saved.
        rounds, tasks: committed, and applied in them.
        staleness: versions that the stalest of these tasks was behind.
        last_uses: for each version that was still used after its next round, the last round that used it.
        devices: of the workers that computed.
        evaluations: metrics by the round whose version has them.
    """

    path: Path
    beginning: Beginning
    outcome: Outcome | None
    lives: tuple[LedgerLife, ...]
    model: Path | None
    rounds: int
    tasks: int
    staleness: int
    last_uses: Mapping[int, int]
    devices: frozenset[str]
    evaluations: Mapping[int, Mapping[str, float]]
    ledger: LedgerReader

    def each_round(self) -> Iterator[tuple[RoundRecord, list[LeaseRecord]]]:
        """Give the committed rounds, in order, with the leases whose contributions made them, in the order of adding.

        Raises:
            UsageError: the ledger is damaged.
        """
        try:
            for record, leases in self.ledger.rounds_with_leases():
                yield record, [lease for lease in leases if lease.kept]
        except (sqlite3.DatabaseError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise _unreadable(self.path / LEDGER, error) from error


@contextlib.contextmanager
def open_run(path: Path) -> Iterator[PastRun]:
    """Open a run directory.

    Raises:
        UsageError: it holds no run, or one that cannot be read.
    """
    if not (path / SETTINGS).is_file():
        raise UsageError(f"run {str(path)!r} has no {SETTINGS}: expected the directory of a run")
    beginning = read_beginning(path / SETTINGS)
    with tempfile.TemporaryDirectory(prefix="paceline-") as folder:
        copy = Path(folder) / LEDGER
        try:
            with LedgerReader(path / LEDGER) as ledger:
                ledger.copy_to(copy)
        except sqlite3.DatabaseError as error:
            raise _unreadable(path / LEDGER, error) from error
        with LedgerReader(copy) as ledger:
            yield _past_run(path, beginning, ledger)


def read_beginning(path: Path) -> Beginning:
    """Read a settings.json.

    Raises:
        UsageError: it is none, or of another paceline.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            raise UsageError(f"{str(path)!r} has format {document['format']}: this paceline reads {FORMAT}")
        fingerprint = JobFingerprint.from_json(json.dumps(document["job_fingerprint"]))
        return Beginning(_settings(path, document["settings"]), fingerprint, str(document["initial_model"]))
    except KeyError as error:
        raise UsageError(f"{str(path)!r} has no {error}: expected the settings of a run") from error
    except (OSError, ValueError, TypeError, ProtocolError) as error:
        raise UsageError(f"{str(path)!r} cannot be read: {error}") from error


def read_settings(path: Path) -> dict[str, Any]:
    """Give the settings of a run directory as JSON values, those of `paceline run`'s workers among them.

    Raises:
        UsageError: it holds no run, or one of another paceline.
    """
    if not (path / SETTINGS).is_file():
        raise UsageError(f"run {str(path)!r} has no {SETTINGS}: expected the directory of a run")
    read_beginning(path / SETTINGS)
    document = json.loads((path / SETTINGS).read_text(encoding="utf-8"))
    try:
        workers = json.loads((path / WORKERS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        workers = {}
    except (OSError, ValueError) as error:
        raise UsageError(f"{str(path / WORKERS)!r} cannot be read: {error}") from error
    return {**document["settings"], **workers}


def _settings(path: Path, document: object) -> RunSettings:
    try:
        return RunSettings.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        wrong = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    except PacelineError as error:
        wrong = str(error)
    raise UsageError(f"{str(path)!r} has a setting that this paceline cannot read: {wrong}")


def _past_run(path: Path, beginning: Beginning, ledger: LedgerReader) -> PastRun:
    try:
        outcome, lives = ledger.outcome(), ledger.lives()
        rounds, tasks, staleness = ledger.totals()
        last_uses = ledger.last_uses()
        evaluations = ledger.evaluations()
        devices = frozenset(
            worker.device for worker in ledger.workers() if worker.device and worker.joined_s is not None
        )
    except sqlite3.DatabaseError as error:
        raise _unreadable(path / LEDGER, error) from error
    model = path / MODEL
    return PastRun(
        path=path,
        beginning=beginning,
        outcome=outcome,
        lives=tuple(lives),
        model=model if outcome is not None and model.is_file() else None,
        rounds=rounds,
        tasks=tasks,
        staleness=staleness,
        last_uses=last_uses,
        devices=devices,
        evaluations=evaluations,
        ledger=ledger,
    )


def _unreadable(path: Path, error: Exception) -> UsageError:
    return UsageError(f"ledger {str(path)!r} cannot be read: {error}")
