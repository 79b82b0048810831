"""Keeps copies of remote shards in a folder of this machine, up to a size; used by all processes of the machine.

A copy is there whole or not at all: it is written under another name, and renamed. Whoever copies a shard or opens its
copy holds a lock on it (a file beside it, flock), so that no shard is copied twice at the same time and none is thrown
away between being found and being opened. When room is needed, copies go that were opened longest ago.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from paceline.extras import needed
from paceline.settings import CACHE_BYTES
from paceline.tracebacks import describe

ATTEMPTS = 5
FIRST_PAUSE_S = 0.5
"""Before the second attempt; before each later one twice as long."""

_CHUNK_BYTES = 1 << 20
# What no second attempt changes.
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError)


class ShardError(Exception):
    """A shard cannot be had; the task that needs it fails."""


def default_folder() -> Path:
    """Give the folder for copies where none is said."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "paceline" / "shards"


def is_remote(url: str) -> bool:
    """Tell whether a shard lies on another machine, or is to be read as if it did."""
    return "://" in url or "::" in url


class ShardCache:
    """See the module.

    Args:
        folder: made when it is needed.
        limit_bytes: of all copies together; what is open in a process stays readable beyond it.
        heard: called with the bytes of each piece that has come.
    """

    def __init__(
        self, folder: Path | None = None, limit_bytes: int = CACHE_BYTES, heard: Callable[[int], None] | None = None
    ) -> None:
        self.folder = folder or default_folder()
        self._limit_bytes = limit_bytes
        self._heard = heard or (lambda nbytes: None)

    @contextlib.contextmanager
    def copy_of(self, url: str, nbytes: int | None = None, beside: Collection[str] = ()) -> Iterator[Path]:
        """Give the path of a shard's copy, to be opened inside; it is made where there is none.

        Args:
            nbytes: its length; None: not known.
            beside: shards whose copies stay, whatever room is needed.

        Raises:
            ShardError: it cannot be reached, has another length, or is longer than all copies may be, but those beside.
        """
        path = self._path(url)
        self._make_folder()
        with _locked(path):
            if not path.is_file():
                self._copy(url, path, nbytes, {self._path(other) for other in beside})
            os.utime(path)
            yield path

    def fetch(self, url: str, nbytes: int | None = None, beside: Collection[str] = ()) -> None:
        """Make a copy, if there is none.

        Raises:
            ShardError: see copy_of.
        """
        with self.copy_of(url, nbytes, beside):
            pass

    def _path(self, url: str) -> Path:
        # The name is for people: the digest tells shards apart.
        digest = hashlib.blake2b(url.encode(), digest_size=12).hexdigest()
        return self.folder / f"{digest}-{url.rsplit('/', 1)[-1][-64:]}"

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ShardError(f"cache {str(self.folder)!r} cannot be made: {describe(error)}") from error

    def _copy(self, url: str, path: Path, nbytes: int | None, kept: Collection[Path]) -> None:
        place: tuple[Any, str] | None = None
        pause_s = FIRST_PAUSE_S
        for attempt in range(1, ATTEMPTS + 1):
            try:
                # Making it asks nobody yet: what fails there is no passing trouble.
                place = place or needed("fsspec", "fsspec", f"shard {url!r}").core.url_to_fs(url)
                return self._try_to_copy((url, *place), path, nbytes, kept)
            except ShardError:
                raise
            except Exception as error:  # whatever a file system of fsspec raises
                if place is None or isinstance(error, _FINAL) or attempt == ATTEMPTS:
                    tried = "" if attempt == 1 else f" ({attempt} attempts)"
                    raise ShardError(f"shard {url!r} cannot be had{tried}: {describe(error)}") from error
            time.sleep(pause_s)
            pause_s *= 2.0
        return None

    def _try_to_copy(
        self, source: tuple[str, Any, str], path: Path, nbytes: int | None, kept: Collection[Path]
    ) -> None:
        url, files, name = source
        length = files.size(name)
        if nbytes is not None and length is not None and length != nbytes:
            raise ShardError(f"shard {url!r} has {length} bytes: expected {nbytes}, as the index says")
        part = path.with_name(f"{path.name}.part-{os.getpid()}-{threading.get_ident()}")
        try:
            self._make_room(url, length or nbytes or 0, kept, part)
            with files.open(name, "rb") as there, part.open("r+b") as here:
                came = self._pump(there, here)
                here.truncate()
            if length is not None and came != length:
                raise OSError(f"{came} of {length} bytes came")
            with self._room():
                part.replace(path)
                # Where others were in the way of making room, there is more than may be until now.
                self._evict(0, (path,))
        finally:
            part.unlink(missing_ok=True)

    def _pump(self, source: Any, target: Any) -> int:
        came = 0
        while piece := source.read(_CHUNK_BYTES):
            target.write(piece)
            came += len(piece)
            self._heard(len(piece))
        return came

    def _make_room(self, url: str, nbytes: int, kept: Collection[Path], part: Path) -> None:
        """Throw copies away until this one fits, and take its room at once: others may look for some meanwhile."""
        if nbytes > self._limit_bytes:
            limit = f"the cache {str(self.folder)!r} may hold {self._limit_bytes}"
            raise ShardError(f"shard {url!r} has {nbytes} bytes, but {limit}: expected a larger --cache-size")
        with self._room():
            missing = self._evict(nbytes, kept)
            if missing > 0 and kept:
                raise ShardError(f"shard {url!r} has no room beside those that are in use")
            with part.open("wb") as taken:
                taken.truncate(nbytes)

    def _room(self) -> contextlib.AbstractContextManager[None]:
        """Hold what only one process at a time does: make room, and let a copy take its place."""
        return _locked(self.folder / "room")

    def _evict(self, nbytes: int, kept: Collection[Path]) -> int:
        """Throw away copies that nobody opens just now, for so many bytes; gives those without room yet."""
        copies, coming = self._copies()
        missing = sum(map(_size, (*copies, *coming))) + nbytes - self._limit_bytes
        for path in copies:
            if missing <= 0:
                break
            if path in kept:
                continue
            with contextlib.suppress(BlockingIOError), _locked(path, wait=False):
                missing -= _size(path)
                path.unlink(missing_ok=True)
        return missing

    def _copies(self) -> tuple[list[Path], list[Path]]:
        """Give the copies, those opened longest ago first, and what is on its way; what killed processes left goes."""
        copies, coming = [], []
        for path in self.folder.iterdir():
            if path.suffix == ".lock":
                continue
            _, part, owner = path.name.rpartition(".part-")
            if not part:
                copies.append(path)
            elif Path("/proc").is_dir() and not Path("/proc", owner.partition("-")[0]).exists():
                path.unlink(missing_ok=True)
            else:
                coming.append(path)
        return sorted(copies, key=lambda path: path.stat().st_mtime), coming


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # given up meanwhile
        return 0


@contextlib.contextmanager
def _locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock of a copy.

    Raises:
        BlockingIOError: another has it, and waiting was not wanted.
    """
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
