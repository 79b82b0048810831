"""The run directory: everything that a run leaves behind, in one folder that says itself what it holds.

    settings.json      what was asked for, of which job, by which paceline; written before round 1
    workers.json       what `paceline run` told the workers that it started
    ledger.sqlite      rounds, leases, workers (see ledger.py)
    checkpoints/       where the run can be resumed (see checkpoints.py)
    model.safetensors  parameters and buffers at the end of the run
    .lock              held by the server that has the directory
    README.txt         says the above to whoever finds the folder

A file that is replaced or appears as a whole is written under a temporary name, reaches the disk, and is then renamed:
it is never there half.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from paceline.errors import UsageError
from paceline.version import __version__

FORMAT = 1  # of the directory; raised when an older paceline could no longer read it
SETTINGS = "settings.json"
WORKERS = "workers.json"
LEDGER = "ledger.sqlite"
MODEL = "model.safetensors"
CHECKPOINTS = "checkpoints"
LOCK = ".lock"

_README = """A run of paceline {version}, job {job}.

settings.json      what was asked for
ledger.sqlite      rounds, leases and workers (SQLite); task ids as ranges: "0-5,9" is 0 to 5 and 9
model.safetensors  the model at the end of the run
checkpoints        where it can be resumed: paceline server --resume RUN
"""


@dataclass(frozen=True, slots=True)
class RunDir:
    """A directory that belongs to one run. Made by `create`.

    Attributes:
        path: the directory.
        job: the spec of the job, `path/file.py:Class` or `pkg.mod:Class`.
        lock: descriptor of the directory's lock, once it holds a run; the lock goes with its process.
    """

    path: Path
    job: str
    lock: list[int] = field(default_factory=list)

    @classmethod
    def create(cls, path: Path | None, job: str) -> RunDir:
        """Make the directory, `runs/<job>-<time>` unless `path` names another; an existing one must hold no run.

        Raises:
            UsageError: it holds a run already, or it cannot be made or written to.
        """
        try:
            chosen = _make_default(job) if path is None else _make(path)
        except OSError as error:
            raise UsageError(f"run directory {str(path or 'runs')!r} cannot be used: {error.strerror}") from error
        return cls(chosen, job)

    @classmethod
    def reopen(cls, path: Path, job: str) -> RunDir:
        """Take the directory of a run over, to go on with it.

        Raises:
            UsageError: another server has it, or it cannot be written to.
        """
        try:
            return cls(path, job, [_lock(path)])
        except OSError as error:
            raise UsageError(f"run directory {str(path)!r} cannot be used: {error.strerror}") from error

    @property
    def ledger(self) -> Path:
        """Where the ledger lies."""
        return self.path / LEDGER

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints lie."""
        return self.path / CHECKPOINTS

    @property
    def model(self) -> Path:
        """Where the model is saved at the end."""
        return self.path / MODEL

    def write_settings(
        self, settings: Mapping[str, Any], job_fingerprint: Mapping[str, Any], initial_model: str, protocol: int
    ) -> None:
        """Write settings.json and README.txt: from here on the directory holds a run.

        Args:
            settings: of the run, as JSON values.
            job_fingerprint: what every worker's job was held against, as JSON values.
            initial_model: fingerprint of the parameters that the run begins with.
            protocol: version of the wire protocol.

        Raises:
            UsageError: another server began a run in this directory meanwhile, or it cannot be written.
        """
        document = {
            "format": FORMAT,
            "paceline": __version__,
            "protocol": protocol,
            "job": self.job,
            "created": _now(),
            "settings": dict(settings),
            "job_fingerprint": dict(job_fingerprint),
            "initial_model": initial_model,
        }
        try:
            _claim(self.path / SETTINGS, json.dumps(document, indent=2) + "\n")
            self.lock.append(_lock(self.path))
            write_whole(self.path / "README.txt", _README.format(version=__version__, job=self.job))
        except FileExistsError as error:
            raise _holds_a_run(self.path, SETTINGS) from error
        except OSError as error:
            raise UsageError(f"run directory {str(self.path)!r} cannot be written: {error.strerror}") from error

    def write_resumed(self, settings: Mapping[str, Any], resumed: Mapping[str, Any]) -> None:
        """Note in settings.json that the run was resumed, and with what settings.

        Args:
            settings: of the run from now on, as JSON values.
            resumed: one entry of the list `resumed`.

        Raises:
            UsageError: it cannot be written.
        """
        try:
            document = json.loads((self.path / SETTINGS).read_text(encoding="utf-8"))
            document["settings"] = dict(settings)
            document["resumed"] = [*document.get("resumed", []), {**resumed, "paceline": __version__, "at": _now()}]
            write_whole(self.path / SETTINGS, json.dumps(document, indent=2) + "\n")
        except OSError as error:
            raise UsageError(f"run directory {str(self.path)!r} cannot be written: {error.strerror}") from error

    def release(self) -> None:
        """Let others have the directory."""
        while self.lock:
            os.close(self.lock.pop())

    def discard(self) -> None:
        """Let go of it, and remove it if nothing was written into it: for a start that failed."""
        self.release()
        for path in (self.checkpoints, self.path):
            with contextlib.suppress(OSError):
                path.rmdir()


def _now() -> str:
    return datetime.now(tz=UTC).isoformat(timespec="seconds")


def _lock(path: Path) -> int:
    """Take the directory for this process; the lock goes with the process, however it ends."""
    descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise UsageError(
            f"run directory {str(path)!r} is in use by another server: expected that it has ended"
        ) from None
    return descriptor


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is there as a whole or not at all, also after a crash."""
    temporary = _written_aside(path, text)
    temporary.replace(path)
    _sync(path.parent)


def _claim(path: Path, text: str) -> None:
    """Write a file whole that must not exist yet: of two that try, one gets FileExistsError."""
    temporary = _written_aside(path, text)
    try:
        os.link(temporary, path)
    finally:
        temporary.unlink()
    _sync(path.parent)


def _written_aside(path: Path, text: str) -> Path:
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", suffix=".tmp", delete=False
    ) as file:
        temporary = Path(file.name)
        try:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            temporary.unlink()
            raise
    temporary.chmod(0o644)
    return temporary


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make(path: Path) -> Path:
    if path.exists() and not path.is_dir():
        raise UsageError(f"run directory {str(path)!r} is a file: expected a new or an empty directory")
    for name in (SETTINGS, LEDGER, MODEL):
        if (path / name).exists():
            raise _holds_a_run(path, name)
    path.mkdir(parents=True, exist_ok=True)
    if not os.access(path, os.W_OK | os.X_OK):
        raise UsageError(f"run directory {str(path)!r} cannot be written: no permission")
    return path


def _make_default(job: str) -> Path:
    name = re.sub(r"[^A-Za-z0-9._-]", "-", job.rpartition(":")[2]) or "job"
    stem = f"{name}-{datetime.now(tz=UTC).astimezone():%Y%m%d-%H%M%S}"
    Path("runs").mkdir(exist_ok=True)
    for attempt in range(1, 1000):
        path = Path("runs") / (stem if attempt == 1 else f"{stem}-{attempt}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise UsageError(f"run directory 'runs/{stem}' is taken a thousand times over: name another with --run-dir")


def _holds_a_run(path: Path, name: str) -> UsageError:
    return UsageError(
        f"run directory {str(path)!r} holds a run already ({name}): name a new one with --run-dir, or remove it"
    )
