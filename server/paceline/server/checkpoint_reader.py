"""Reads the folder of a run's checkpoints (checkpoints.py says what lies there), also while a server writes there."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from paceline.errors import CheckpointError
from paceline.server import checkpoint_files
from paceline.server.checkpoint_files import FILES, LoadedCheckpoint

CHECKPOINTS = "checkpoints"
"""The folder's name in a run's directory."""

TEMPORARY = ".tmp-"
"""How names begin of what is being written or removed."""

T = TypeVar("T")

_NAME = re.compile(r"(\d{8}|[1-9]\d{8,})(\.old)?")


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """What is seen of a checkpoint without reading its tensors.

    Attributes:
        saved_at: in UTC; None where it cannot be read.
        nbytes: of its files together, as they are.
        fault: what is wrong at first sight (a file missing, cut off or unreadable); empty: nothing.
    """

    version: int
    path: Path
    saved_at: datetime | None
    nbytes: int
    fault: str = ""


class CheckpointReader:
    """Reads a folder of checkpoints and changes nothing in it.

    Args:
        folder: may be missing: then there are none.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def list(self) -> Sequence[CheckpointInfo]:
        """Give what is there, newest first.

        Raises:
            CheckpointError: the folder cannot be read.
        """
        while True:
            looks = [self._info(version, path) for version, path in self.paths().items()]
            infos = [info for info in looks if info is not None]
            if len(infos) == len(looks):  # else a server has removed one, perhaps for a newer one
                return sorted(infos, key=lambda info: -info.version)

    def foreign(self) -> Sequence[str]:
        """Name what is neither a checkpoint nor a temporary of ours, in the folder or in one of a checkpoint.

        Raises:
            CheckpointError: the folder cannot be read.
        """
        found: Sequence[Path] = ()
        for entry in self.entries():
            if version_of(entry) is not None:
                found = [*found, *strange(Path(entry.path))]
            elif not entry.name.startswith(TEMPORARY):
                found = [*found, Path(entry.path)]
        return sorted(str(path.relative_to(self.folder)) for path in found)

    def verify(self, info: CheckpointInfo) -> str:
        """Read all of a checkpoint and compare every checksum.

        Returns:
            What is wrong with it; empty: nothing, or it was removed meanwhile.
        """

        def fault() -> str:
            try:
                _check_name(info.version, checkpoint_files.check(info.path).version, info.path)
            except CheckpointError as error:
                return str(error)
            return ""

        return _settled(info.path, fault, lambda fault: not fault) or ""

    def load(self, version: int) -> LoadedCheckpoint:
        """Check one and read it into memory.

        Raises:
            CheckpointError: there is none of this version, or it is damaged: file, expected and found.
        """
        path = self.path_of(version)
        loaded = checkpoint_files.load(path)
        _check_name(version, loaded.version, path)
        return loaded

    def newest(self, usable: Callable[[int], bool]) -> tuple[LoadedCheckpoint | None, Sequence[tuple[int, str]]]:
        """Load the newest that is whole and usable.

        Args:
            usable: says of a version whether it may be.

        Returns:
            None where there is none; and those newer ones that were passed over, with the reason.

        Raises:
            CheckpointError: the folder cannot be read.
        """
        passed: list[tuple[int, str]] = []
        for info in self.list():
            try:
                if not usable(info.version):
                    raise CheckpointError("the run cannot go on from it: its ledger lacks rounds before it")
                return self.load(info.version), passed
            except CheckpointError as error:
                passed.append((info.version, str(error)))
        return None, passed

    def path_of(self, version: int) -> Path:
        """Say where a checkpoint lies.

        Raises:
            CheckpointError: there is none of this version.
        """
        paths = self.paths()
        if version not in paths:
            there = ", ".join(map(str, sorted(paths))) or "none"
            raise CheckpointError(f"{str(self.folder)!r} has no checkpoint of version {version}: there are {there}")
        return paths[version]

    def paths(self) -> dict[int, Path]:
        """Say where each checkpoint lies, by version.

        Raises:
            CheckpointError: the folder cannot be read.
        """
        found: dict[int, Path] = {}
        for entry in self.entries():  # 00000120 before 00000120.old, which counts without it alone
            version = version_of(entry)
            if version is not None:
                found.setdefault(version, Path(entry.path))
        return found

    def entries(self) -> Sequence[os.DirEntry[str]]:
        """Give everything in the folder, by name.

        Raises:
            CheckpointError: it cannot be read.
        """
        try:
            with os.scandir(self.folder) as scan:
                return sorted(scan, key=lambda entry: entry.name)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CheckpointError(f"checkpoints {str(self.folder)!r} cannot be read: {error.strerror}") from error

    def _info(self, version: int, path: Path) -> CheckpointInfo | None:
        return _settled(path, lambda: _look(version, path), lambda info: not info.fault)


def version_of(entry: os.DirEntry[str]) -> int | None:
    """Give the version of a checkpoint's folder; None: it is something else."""
    match = _NAME.fullmatch(entry.name)
    # The kind comes with the name: it is known also of one that is gone by now.
    return int(match[1]) if match and entry.is_dir(follow_symlinks=False) else None


def strange(path: Path) -> list[Path]:
    """Give what is no file of ours in a checkpoint's folder."""
    try:
        return [entry for entry in path.iterdir() if entry.name not in FILES]
    except OSError:
        return []


def _settled(path: Path, look: Callable[[], T], good: Callable[[T], bool]) -> T | None:
    """Look again where what was seen is not good, and a server has replaced the folder meanwhile; None: it is gone."""
    while True:
        before = _identity(path)
        found = look()
        if good(found):
            return found
        if _identity(path) == before:
            return None if before is None else found


def _identity(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_ctime_ns, found.st_mtime_ns  # inodes are soon used again


def _look(version: int, path: Path) -> CheckpointInfo:
    saved_at, fault = None, ""
    try:
        manifest = checkpoint_files.read_manifest(path)
        saved_at = manifest.saved_at
        _check_name(version, manifest.version, path)
    except CheckpointError as error:
        fault = str(error)
    return CheckpointInfo(version, path, saved_at, _nbytes(path), fault)


def _nbytes(path: Path) -> int:
    total = 0
    for name in FILES:
        try:
            total += (path / name).stat().st_size
        except OSError:
            pass
    return total


def _check_name(expected: int, found: int, path: Path) -> None:
    if found != expected:
        raise CheckpointError(f"{str(path)!r} holds version {found}: expected {expected}, as its name says")
