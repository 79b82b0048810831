"""One checkpoint: a folder with three files. Writes one into an empty folder, and reads one back; no renaming here.

    model.safetensors  the weights, by the names of the model's state
    state.safetensors  the tensors of the rest
    checkpoint.json    {"crc32c": ..., "content": ...}: the rest as a tree (statefile.py), what the caller adds,
                       and length and checksum of the other two

Nothing that is read is believed before its checksum was compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from paceline.errors import CheckpointError, UsageError
from paceline.server.durable import Checksum, checksum, seal, sync, unseal, write_synced
from paceline.statefile import Json, pack, unpack
from paceline.version import __version__

FORMAT = 1  # of checkpoint.json; raised when an older paceline could no longer read it
WEIGHTS = "model.safetensors"
STATE = "state.safetensors"
MANIFEST = "checkpoint.json"
FILES = frozenset((WEIGHTS, STATE, MANIFEST))

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a checkpoint.json says.

    Attributes:
        saved_at: in UTC.
        files: of the other two, by name.
        state: the packed state, unchecked.
        content: what the caller added.
    """

    version: int
    saved_at: datetime
    files: Mapping[str, Checksum]
    state: Json
    content: Json


@dataclass(frozen=True, slots=True)
class LoadedCheckpoint:
    """A checkpoint in memory.

    Attributes:
        weights: by the names of the model's state, on the CPU.
        state: what was saved as the state; its tensors are on the CPU.
        content: what the caller added.
    """

    version: int
    weights: dict[str, torch.Tensor]
    state: dict[str, object]
    content: Json


def write_checkpoint(folder: Path, version: int, weights: Tensors, state: Mapping[str, object], content: Json) -> int:
    """Write the three files and bring them and their names to the disk.

    Args:
        folder: empty.
        weights, state: private copies, which nobody changes meanwhile.

    Returns:
        Their length together, in bytes.

    Raises:
        OSError, SafetensorError: they cannot be written.
        UsageError: the state is more than tensors, numbers, strings, lists and dicts.
        CheckpointError: the content is no JSON.
    """
    tree, tensors = pack(dict(state), "state")
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    files = {WEIGHTS: _write_tensors(folder / WEIGHTS, plain), STATE: _write_tensors(folder / STATE, tensors)}
    document: Json = {
        "format": FORMAT,
        "paceline": __version__,
        "version": version,
        "saved_at": datetime.now(tz=UTC).isoformat(timespec="seconds"),
        "files": {name: {"bytes": found.nbytes, "crc32c": found.crc32c} for name, found in files.items()},
        "state": tree,
        "content": content,
    }
    sealed = seal(document)
    write_synced(folder / MANIFEST, sealed)
    sync(folder)
    return len(sealed) + sum(found.nbytes for found in files.values())


def read_manifest(folder: Path) -> Manifest:
    """Read a checkpoint.json, and see that the other files are there in their lengths.

    Raises:
        CheckpointError: file, what was expected and what was found.
    """
    path = folder / MANIFEST
    try:
        document = unseal(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    except CheckpointError as error:
        raise CheckpointError(f"{str(path)!r} {error}") from error
    manifest = _manifest(path, document)
    for name, expected in manifest.files.items():
        try:
            nbytes = (folder / name).stat().st_size
        except OSError as error:
            raise CheckpointError(f"{str(folder / name)!r} cannot be read: {error.strerror}") from error
        if nbytes != expected.nbytes:
            raise CheckpointError(f"{str(folder / name)!r} has {nbytes} bytes: expected {expected.nbytes}")
    return manifest


def check(folder: Path) -> Manifest:
    """Read all of a checkpoint and compare its checksums.

    Raises:
        CheckpointError: file, what was expected and what was found.
    """
    manifest = read_manifest(folder)
    for name, expected in manifest.files.items():
        require_checksum(folder / name, expected)
    return manifest


def require_checksum(path: Path, expected: Checksum) -> None:
    """Read a file and compare.

    Raises:
        CheckpointError: it is another, or cannot be read.
    """
    try:
        found = checksum(path)
    except OSError as error:
        raise CheckpointError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    if found != expected:
        what = f"{found.nbytes} bytes with checksum {found.crc32c}"
        raise CheckpointError(f"{str(path)!r} has {what}: expected {expected.nbytes} with {expected.crc32c}")


def load(folder: Path) -> LoadedCheckpoint:
    """Check a checkpoint and read it into memory.

    Raises:
        CheckpointError: it is damaged: file, what was expected and what was found.
    """
    manifest = check(folder)
    weights = _read_tensors(folder / WEIGHTS)
    try:
        state = unpack(manifest.state, _read_tensors(folder / STATE))
    except UsageError as error:
        raise CheckpointError(f"{str(folder / MANIFEST)!r} does not fit {STATE}: {error}") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{str(folder / MANIFEST)!r} has a {type(state).__name__} for state: expected a dict")
    return LoadedCheckpoint(manifest.version, weights, state, manifest.content)


def _write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> Checksum:
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(0o644)
    sync(path)
    return checksum(path)


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read into memory of their own: mapped ones would need the file, and lie where vector code may round otherwise."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{str(path)!r} cannot be read as safetensors: {error}") from error


def _manifest(path: Path, document: Json) -> Manifest:
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        found = document.get("format") if isinstance(document, dict) else None
        raise CheckpointError(f"{str(path)!r} has format {found!r}: this paceline reads {FORMAT}")
    try:
        files = {name: _checksum_of(document["files"], name) for name in (WEIGHTS, STATE)}
        saved_at = datetime.fromisoformat(str(document["saved_at"]))
        version = document["version"]
        if type(version) is not int:
            raise TypeError(f"version is {version!r}")
        return Manifest(version, saved_at, files, document["state"], document["content"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{str(path)!r} is no checkpoint's: {error!r}") from error


def _checksum_of(files: Json, name: str) -> Checksum:
    entry = files[name] if isinstance(files, dict) else None
    nbytes, crc = (entry["bytes"], entry["crc32c"]) if isinstance(entry, dict) else (None, None)
    if type(nbytes) is not int or type(crc) is not int:
        raise TypeError(f"files has {entry!r} for {name}")
    return Checksum(nbytes, crc)
