"""Goes on with a run whose server ended or was killed: from its newest checkpoint that ledger and checksums vouch for.

1. take the directory's lock; read what the run is, and hold the settings that are asked for against its own
2. build the job, and hold its fingerprint against the run's
3. choose the checkpoint: the newest that is whole and up to which the ledger has every round
4. begin the next life: rows after the checkpoint become void, the parts go on from what was saved
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paceline.coordination.cut import Cut
from paceline.coordination.effects import Outcome
from paceline.coordination.policies import PolicyOptions
from paceline.errors import CheckpointError, NothingToResume, UsageError
from paceline.fingerprint import differences
from paceline.server.checkpoints import CheckpointReader, LoadedCheckpoint
from paceline.server.ledger_reader import LedgerReader
from paceline.server.past_run import Beginning, read_beginning
from paceline.server.preparation import Preparation
from paceline.server.rundir import CHECKPOINTS, LEDGER, SETTINGS, RunDir
from paceline.settings import RunSettings
from paceline.weights import take_weights

FIXED = frozenset(
    (
        "seed", "micro_batch", "micro_steps", "sums", "precision", "channels_last", "compile", "threads",
        "partition", "device", "init",
        "tasks", "policy", *(name for name in RunSettings.model_fields if name in PolicyOptions.__dataclass_fields__),
    )
)  # fmt: skip
"""Settings that a resumed run cannot change: all on which the versions depend. The job's fingerprint is held too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """A run as its last server left it; the directory's lock is ours.

    Attributes:
        life: of its last server.
        checkpoint: the newest that can be vouched for.
        notes: what people should hear of it.
    """

    run_dir: RunDir
    beginning: Beginning
    life: int
    checkpoint: LoadedCheckpoint | None
    notes: tuple[str, ...]

    def to_build(self, settings: RunSettings) -> RunSettings:
        """Give the settings to build the job with: a checkpoint stands for initial weights."""
        return settings if self.checkpoint is None else settings.model_copy(update={"init": None})

    def resume(self, settings: RunSettings, prepared: Preparation) -> Resumed:
        """Bring what was prepared to the checkpoint.

        Raises:
            UsageError: the job is not the run's, or the checkpoint is not the job's.
        """
        path, loaded = str(self.run_dir.path), self.checkpoint
        found = differences(self.beginning.fingerprint, prepared.fingerprint)
        if found:
            raise UsageError(f"job {settings.job!r} is not that of run {path!r}: {'; '.join(found)}")
        if loaded is not None:
            take_weights(prepared.flat, loaded.weights, f"of checkpoint {loaded.version}")
        elif prepared.initial_model != self.beginning.initial_model:
            raise UsageError(
                f"job {settings.job!r} begins with parameters of fingerprint {prepared.initial_model}, run {path!r}"
                f" began with {self.beginning.initial_model}, and there is no checkpoint to go on from"
            )
        return Resumed(
            run_dir=self.run_dir,
            life=self.life + 1,
            cut=None if loaded is None else _cut(loaded),
            state={} if loaded is None else loaded.state,
            notes=self.notes,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """What a server goes on from.

    Attributes:
        life: its own.
        cut, state: of the checkpoint; None and empty: there is none, the run begins again at round 0.
        notes: what people should hear of it.
    """

    run_dir: RunDir
    life: int
    cut: Cut | None
    state: Mapping[str, Any]
    notes: tuple[str, ...]

    @property
    def version(self) -> int:
        """Of the model that it begins with."""
        return 0 if self.cut is None else self.cut.version


def take_up(path: Path, settings: RunSettings) -> Earlier:
    """Take the directory of a run, to go on with these settings.

    Raises:
        NothingToResume: it is done, and no further goal is set.
        UsageError: it holds no run, another server has it, or the settings are not the run's.
        CheckpointError: its checkpoints cannot be read.
    """
    if not (path / SETTINGS).is_file():
        raise UsageError(f"run {str(path)!r} has no {SETTINGS}: expected the directory of a run")
    run_dir = RunDir.reopen(path, settings.job)
    try:
        return _look_at(run_dir, settings)
    except BaseException:
        run_dir.release()
        raise


def _look_at(run_dir: RunDir, settings: RunSettings) -> Earlier:
    path = run_dir.path
    beginning = read_beginning(path / SETTINGS)
    check_agreement(path, beginning.settings, settings)
    reader = CheckpointReader(path / CHECKPOINTS)
    if not _has_begun(path / LEDGER):
        if reader.list():
            raise _nothing_usable(path, [f"{LEDGER} is missing"])
        begins = ("nothing had happened: the run begins",)
        return Earlier(run_dir=run_dir, beginning=beginning, life=0, checkpoint=None, notes=begins)
    try:
        with LedgerReader(path / LEDGER) as ledger:
            life, outcome = ledger.lives()[-1].life, ledger.outcome()
            goals = ("rounds", "epochs", "until")
            same_goals = all(getattr(beginning.settings, goal) == getattr(settings, goal) for goal in goals)
            if outcome is Outcome.DONE and same_goals:
                raise NothingToResume(f"run {str(path)!r} is done: to go on with it, say how far, such as --rounds")
            loaded, passed_over = reader.newest(ledger.complete_to)
    except sqlite3.DatabaseError as error:
        raise UsageError(f"ledger {str(path / LEDGER)!r} cannot be read: {error}") from error
    notes = [f"checkpoint of round {version} is passed over: {why}" for version, why in passed_over]
    if loaded is None and passed_over:
        raise _nothing_usable(path, [f"{version}: {why}" for version, why in passed_over])
    if loaded is None:
        notes.append("no checkpoint yet: the run begins again at round 0")
    else:
        notes.append(f"goes on from the checkpoint of round {loaded.version}")
    return Earlier(run_dir=run_dir, beginning=beginning, life=life, checkpoint=loaded, notes=tuple(notes))


def _nothing_usable(path: Path, why: list[str]) -> CheckpointError:
    return CheckpointError(
        f"run {str(path)!r} has checkpoints, and none can be gone on from ({'; '.join(why)}):"
        " `paceline checkpoint export` takes the weights out, and --init begins another run with them"
    )


def _has_begun(ledger: Path) -> bool:
    """Tell whether a server came so far as to make the ledger: its tables and first rows are one transaction."""
    if not ledger.is_file():
        return False
    with contextlib.closing(sqlite3.connect(f"{ledger.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        try:
            return bool(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
        except sqlite3.DatabaseError:
            return True  # what is wrong with it is said when it is read


def check_agreement(path: Path, before: RunSettings, wanted: RunSettings) -> None:
    """Refuse settings that would make another run of it; UsageError names them."""
    different = [
        f"{name.removesuffix('_s').replace('_', '-')} is {getattr(wanted, name)!r} (the run's:"
        f" {getattr(before, name)!r})"
        for name in RunSettings.model_fields
        if name in FIXED and getattr(wanted, name) != getattr(before, name)
    ]
    if different:
        raise UsageError(f"settings are not those of run {str(path)!r}: {', '.join(different)}")


def _cut(loaded: LoadedCheckpoint) -> Cut:
    content = loaded.content
    if not isinstance(content, Mapping) or "cut" not in content:
        raise UsageError(f"checkpoint of round {loaded.version} has no cut: expected one of this paceline")
    return Cut.from_json(content["cut"])
