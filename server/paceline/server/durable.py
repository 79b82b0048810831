"""Files that reach the disk, and that tell whether they came back whole: checksums of files, and of JSON in itself."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from paceline.errors import CheckpointError
from paceline.protos.framing import CHUNK_BYTES, crc32c
from paceline.statefile import Json

_SEALED = re.compile(rb'\{"crc32c": (\d{1,10}), "content": (.*)\}\n', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Checksum:
    """Length and CRC-32C of a file."""

    nbytes: int
    crc32c: int


def checksum(path: Path) -> Checksum:
    """Read a file and give its checksum.

    By blocks: reading lets other threads run, and the checksum of one block holds the interpreter's lock for 45 us.
    Not mapped into memory: a disk that cannot read a page would kill the process.
    """
    nbytes, value = 0, 0
    block = memoryview(bytearray(CHUNK_BYTES))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(block):
            nbytes, value = nbytes + count, crc32c(block[:count], value)
    return Checksum(nbytes, value)


def seal(content: Json) -> bytes:
    """Write JSON with a checksum of its own text: ``{"crc32c": 1234, "content": ...}``, on one line.

    Raises:
        CheckpointError: it is no JSON, which has no infinity either.
    """
    try:
        text = json.dumps(content, allow_nan=False).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"a checkpoint's content cannot be written: {error}: expected JSON values") from error
    return b'{"crc32c": %d, "content": %b}\n' % (crc32c(text), text)


def unseal(data: bytes) -> Json:
    """Read what `seal` wrote.

    Raises:
        CheckpointError: it is not to the letter what was written.
    """
    match = _SEALED.fullmatch(data)
    if match is None:
        raise CheckpointError("is no JSON with a checksum: expected crc32c and content")
    if (found := crc32c(match[2])) != int(match[1]):
        raise CheckpointError(f"has checksum {found}: expected {int(match[1])}")
    try:
        content: Json = json.loads(match[2])
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"is no JSON: {error}") from error
    return content


def write_synced(path: Path, data: bytes | memoryview) -> None:
    """Write a new file and bring it to the disk."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
