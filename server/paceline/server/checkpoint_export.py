"""Takes the weights out of a run's checkpoints, as a file of their own. The run's directory stays as it is."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from paceline.errors import CheckpointError, UsageError
from paceline.fingerprint import JobFingerprint
from paceline.flat import fingerprint_of
from paceline.layout import Role, TensorSpec, lay_out
from paceline.protos.framing import CHUNK_BYTES, crc32c
from paceline.server import checkpoint_files
from paceline.server.best import BEST, best_with_checksum
from paceline.server.checkpoint_files import WEIGHTS
from paceline.server.checkpoint_reader import CHECKPOINTS, CheckpointReader
from paceline.server.durable import Checksum, sync
from paceline.server.past_run import read_beginning
from paceline.server.rundir import SETTINGS


@dataclass(frozen=True, slots=True)
class Export:
    """Weights that were written.

    Attributes:
        version: of the model.
        path: of the file.
        fingerprint: of the model, as `paceline run` and `replay` print it; None: it has buffers that no file holds.
    """

    version: int
    path: Path
    nbytes: int
    fingerprint: str | None


def checkpoints_of(run: Path) -> CheckpointReader:
    """Give a run's checkpoints.

    Raises:
        UsageError: no run is there.
    """
    if not run.is_dir():
        raise UsageError(f"run {str(run)!r} does not exist: expected the directory of a run")
    if not (run / SETTINGS).is_file():
        raise UsageError(f"run {str(run)!r} has no {SETTINGS}: expected the directory of a run")
    return CheckpointReader(run / CHECKPOINTS)


def export_checkpoint(run: Path, version: int | None, out: Path) -> Export:
    """Write the weights of one checkpoint, by default the newest, into a new file.

    Raises:
        UsageError: no run, no checkpoint, none of this version; or the file is there already or cannot be written.
        CheckpointError: the checkpoint is damaged.
    """
    reader = checkpoints_of(run)
    _check_free(out)
    versions = sorted(reader.paths())
    if not versions:
        raise UsageError(f"run {str(run)!r} has no checkpoints")
    chosen = versions[-1] if version is None else version
    if chosen not in versions:
        there = ", ".join(map(str, versions))
        raise UsageError(f"run {str(run)!r} has no checkpoint of round {chosen}: expected one of {there}")
    path = reader.path_of(chosen)
    manifest = checkpoint_files.read_manifest(path)
    copy_checked(path / WEIGHTS, manifest.files[WEIGHTS], out)
    fingerprint = _fingerprint(read_beginning(run / SETTINGS).fingerprint, out)
    return Export(chosen, out, manifest.files[WEIGHTS].nbytes, fingerprint)


def export_best(run: Path, out: Path) -> Export:
    """Write the best weights of a run into a new file.

    Raises:
        UsageError: no run, or none was saved as its best; or the file is there already or cannot be written.
        CheckpointError: they are damaged.
    """
    checkpoints_of(run)
    _check_free(out)
    found = best_with_checksum(run)
    if found is None:
        raise UsageError(f"run {str(run)!r} has no {BEST}: expected one that was told a metric")
    best, expected = found
    copy_checked(run / BEST, expected, out)
    return Export(best.version, out, expected.nbytes, best.fingerprint)


def _check_free(out: Path) -> None:
    if out.exists() or out.is_symlink():
        raise UsageError(f"--out is {str(out)!r}, which exists already: expected a new file")
    if not out.parent.is_dir():
        raise UsageError(f"--out is {str(out)!r}, but the folder {str(out.parent)!r} does not exist: make it first")


def copy_checked(source: Path, expected: Checksum, out: Path) -> None:
    """Copy a file under a temporary name, comparing its checksum on the way; then give the copy its name.

    Raises:
        UsageError: the name is taken, or the copy cannot be written.
        CheckpointError: the source is not what is expected, or cannot be read.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
            temporary = Path(folder) / out.name
            found = _copied(source, temporary)
            if found != expected:
                what = f"{found.nbytes} bytes with checksum {found.crc32c}"
                raise CheckpointError(f"{str(source)!r} has {what}: expected {expected.nbytes} with {expected.crc32c}")
            os.link(temporary, out)  # and not a rename, which would replace a file that came meanwhile
        sync(out.parent)
    except FileExistsError as error:
        raise UsageError(f"--out is {str(out)!r}, which exists already: expected a new file") from error
    except OSError as error:
        raise UsageError(f"--out is {str(out)!r}, which cannot be written: {error.strerror}") from error


def _copied(source: Path, target: Path) -> Checksum:
    nbytes, value = 0, 0
    try:
        reading = source.open("rb")
    except OSError as error:
        raise CheckpointError(f"{str(source)!r} cannot be read: {error.strerror}") from error
    with reading, target.open("xb") as writing:
        while block := reading.read(CHUNK_BYTES):
            nbytes, value = nbytes + len(block), crc32c(block, value)
            writing.write(block)
        writing.flush()
        os.fsync(writing.fileno())
    return Checksum(nbytes, value)


def _fingerprint(job: JobFingerprint, path: Path) -> str | None:
    """Give the fingerprint of the run's model with these weights."""
    try:
        layout = lay_out(
            [TensorSpec(Role[role.upper()], name, shape, dtype) for name, role, shape, dtype in job.tensors]
        )
        return fingerprint_of(layout, load_file(path))
    except (KeyError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"the weights do not fit the run's {SETTINGS}: {error}") from error
