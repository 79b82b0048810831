"""Writes files that hold secrets: for their owner alone, on the disk when they have their name, never half a file."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from paceline.errors import UsageError

OWNER_ONLY = 0o600


def write_secret(path: Path, data: bytes) -> None:
    """Write a new file.

    Raises:
        UsageError: there is one already, which is left as it is; or none can be written.
    """
    temporary = _write_beside(path, data)
    try:
        # Unlike a rename, a link does not replace what is there.
        os.link(temporary, path)
    except FileExistsError:
        raise UsageError(f"{path} is there already: expected a new file, none is ever overwritten") from None
    except OSError as error:
        raise _unwritable(path, error) from None
    finally:
        temporary.unlink()
    _sync_folder(path.parent)


def replace_secret(path: Path, data: bytes) -> None:
    """Write a file that may be there already: whoever reads it sees the old one or the new one.

    Raises:
        UsageError: it cannot be written.
    """
    temporary = _write_beside(path, data)
    try:
        temporary.replace(path)
    except OSError as error:
        temporary.unlink()
        raise _unwritable(path, error) from None
    _sync_folder(path.parent)


def _write_beside(path: Path, data: bytes) -> Path:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY)
    except OSError as error:
        raise _unwritable(path, error) from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        temporary.unlink()
        raise _unwritable(path, error) from None
    return temporary


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unwritable(path: Path, error: OSError) -> UsageError:
    return UsageError(f"{path} cannot be written: {error.strerror}")
