"""Gives a worker that was not named the first free slot on its host, so that a restart keeps its name.

A slot is a file under a lock of the kernel's: it is free again when its process is gone, however it ended.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import tempfile
from pathlib import Path
from types import TracebackType

from paceline.errors import SettingsError

_MAX_LENGTH = 64
_MAX_SLOTS = 4096


class NameSlot:
    """A name that is held until close() or the end of the process.

    Attributes:
        name: host name and slot number, such as "desk-1".
    """

    def __init__(self, name: str, descriptor: int) -> None:
        self.name = name
        self._descriptor = descriptor

    def close(self) -> None:
        """Give the slot back."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> NameSlot:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def claim_slot(folder: Path, host: str) -> NameSlot:
    """Take the first free slot of a host.

    Args:
        folder: where the lock files lie; made if it is not there. Must be this user's own.
        host: any text; what may not be in a name is replaced.

    Raises:
        SettingsError: the folder cannot be used.
    """
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", host).strip("-") or "worker"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = folder.lstat().st_uid
    except OSError as error:
        raise SettingsError(
            f"no name can be reserved in {str(folder)!r}: {error.strerror}; give one by --name"
        ) from None
    if owner != os.getuid() or folder.is_symlink():
        raise SettingsError(f"{str(folder)!r} belongs to somebody else: give the worker a name by --name")
    for slot in range(1, _MAX_SLOTS + 1):
        name = f"{stem[: _MAX_LENGTH - len(str(slot)) - 1]}-{slot}"
        descriptor = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
        else:
            return NameSlot(name, descriptor)
    raise SettingsError(f"all {_MAX_SLOTS} names of host {host} are taken: give the worker a name by --name")


def default_folder() -> Path:
    """Where slots lie unless somebody says otherwise: one folder per user."""
    return Path(tempfile.gettempdir()) / f"paceline-{os.getuid()}"


def claim_default_name() -> NameSlot:
    """Take the first free slot of this host."""
    return claim_slot(default_folder(), socket.gethostname())
