"""The folder of a run's checkpoints: one folder for each, by version. One thread of one process writes, anyone reads.

    00000120/          a whole checkpoint (checkpoint_files.py says what is in it)
    00000120.old/      while another of the same version takes its place: counts where 00000120 is missing
    .tmp-*/            being written or removed, or left over from a process that was killed

A checkpoint is written under a temporary name, reaches the disk file by file, and is then renamed; one that goes is
renamed before its files are deleted. So whatever bears a version's name is whole, whenever the process dies. Other
things in the folder are somebody's: they are named, never touched (`kept-*`: a checkpoint with such things inside).
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError

from paceline.errors import CheckpointError, UsageError
from paceline.server import checkpoint_files
from paceline.server.checkpoint_files import LoadedCheckpoint
from paceline.server.checkpoint_reader import (
    CHECKPOINTS,
    TEMPORARY,
    CheckpointInfo,
    CheckpointReader,
    strange,
    version_of,
)
from paceline.server.durable import sync
from paceline.statefile import Json

__all__ = [
    "CHECKPOINTS",
    "CheckpointInfo",
    "CheckpointReader",
    "CheckpointStore",
    "LoadedCheckpoint",
    "SavedCheckpoint",
]


@dataclass(frozen=True, slots=True)
class SavedCheckpoint:
    """A checkpoint that has reached the disk.

    Attributes:
        nbytes: of its files together.
        remark: why older ones could not be removed; empty: they are.
    """

    version: int
    path: Path
    nbytes: int
    remark: str = ""


class CheckpointStore(CheckpointReader):
    """Writes checkpoints, and keeps the newest. Makes the folder, and removes what a killed process left half done.

    Args:
        keep: so many, at least 1. While one more is being written there is room for that too.

    Raises:
        CheckpointError: the folder cannot be made or written to.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        super().__init__(folder)
        self._keep = keep
        try:
            folder.mkdir(parents=True, exist_ok=True)
            sync(folder.parent)
            self._tidy()
        except OSError as error:
            raise CheckpointError(f"checkpoints {str(folder)!r} cannot be written: {error.strerror}") from error

    def save(
        self,
        version: int,
        weights: Mapping[str, torch.Tensor],
        state: Mapping[str, object],
        content: Json,
        before_publish: Callable[[], bool] = lambda: True,
    ) -> SavedCheckpoint:
        """Save a checkpoint; one of the same version is replaced. Then remove older ones, and later ones.

        Later versions belong to a course that was given up when the run went on from an earlier one.

        Args:
            weights, state: private copies, which nobody changes meanwhile.
            content: what else is to be kept.
            before_publish: called when all has reached the disk but the name; False gives the checkpoint up.

        Raises:
            CheckpointError: it could not be written (disk full, no permission, a state that is more than plain values)
                or was given up. Nothing of it is left, and those before it are as they were.
        """
        path = self.folder / f"{version:08d}"
        try:
            self._tidy()
            temporary = Path(tempfile.mkdtemp(prefix=f"{TEMPORARY}{path.name}-", dir=self.folder))
            try:
                temporary.chmod(0o755)
                nbytes = checkpoint_files.write_checkpoint(temporary, version, weights, state, content)
                if not before_publish():
                    raise CheckpointError(f"checkpoint {str(path)!r} was given up before it got its name")
                self._publish(temporary, path)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
        except OSError as error:
            raise CheckpointError(f"checkpoint {str(path)!r} cannot be written: {error.strerror or error}") from error
        except (SafetensorError, UsageError) as error:
            raise CheckpointError(f"checkpoint {str(path)!r} cannot be written: {error}") from error
        return SavedCheckpoint(version, path, nbytes, self._prune(version))

    def drop_after(self, version: int) -> Sequence[int]:
        """Remove checkpoints of later versions, as a run must that goes on from this one; give their versions.

        Raises:
            CheckpointError: one cannot be removed.
        """
        later = {found: path for found, path in self.paths().items() if found > version}
        for path in later.values():
            try:
                self._remove(path)
            except OSError as error:
                raise CheckpointError(f"checkpoint {str(path)!r} cannot be removed: {error.strerror}") from error
        return sorted(later)

    def _publish(self, temporary: Path, path: Path) -> None:
        aside = path.with_name(f"{path.name}.old")
        if path.exists():
            path.rename(aside)
        try:
            temporary.rename(path)
        except OSError:
            if aside.exists():
                aside.rename(path)
            raise
        sync(self.folder)

    def _prune(self, version: int) -> str:
        """Keep the newest up to a version, and say what could not be removed."""
        try:
            self._tidy()
            self.drop_after(version)
            whole = [info for info in self.list() if not info.fault]
            oldest = whole[: self._keep][-1].version if whole else version
            for found, path in self.paths().items():
                if found < oldest:
                    self._remove(path)
        except OSError as error:
            return f"older checkpoints in {str(self.folder)!r} cannot be removed: {error.strerror}"
        except CheckpointError as error:
            return str(error)
        return ""

    def _tidy(self) -> None:
        """Finish or undo what was begun: temporaries go, and one that was set aside gets its name back or goes."""
        for entry in self.entries():
            path = Path(entry.path)
            if entry.name.startswith(TEMPORARY) and entry.is_dir(follow_symlinks=False):
                shutil.rmtree(path)
            elif path.suffix == ".old" and version_of(entry) is not None:
                if path.with_suffix("").exists():
                    self._remove(path)
                else:
                    path.rename(path.with_suffix(""))

    def _remove(self, path: Path) -> None:
        """Remove a checkpoint; one that holds files that are not ours stays under another name."""
        held = bool(strange(path))
        aside = Path(tempfile.mkdtemp(prefix=f"{'kept-' if held else TEMPORARY}{path.name}-", dir=self.folder))
        path.rename(aside)
        if not held:
            sync(self.folder)  # before its files go: after a power cut the old name must not lead to half of them
            shutil.rmtree(aside)
