"""The file that a flag such as `--json` names: refused early if it cannot be written, written whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from paceline.errors import UsageError


def check_writable(path: Path, flag: str = "--json") -> None:
    """Refuse, before anything is started, a path that could not be written at the end.

    Args:
        flag: that names it.

    Raises:
        UsageError: it is a directory, or its folder is missing or may not be written to.
    """
    if path.is_dir():
        raise UsageError(f"{flag} is {str(path)!r}, a directory: expected a file")
    folder = path.parent
    if not folder.is_dir():
        raise UsageError(f"{flag} is {str(path)!r}, but the folder {str(folder)!r} does not exist: make it first")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise UsageError(f"{flag} is {str(path)!r}, but it cannot be written: expected a path with write permission")


def write_json(path: Path, document: Mapping[str, object]) -> None:
    """Write a document; see `write_whole`."""
    write_whole(path, json.dumps(document, indent=2) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Write a text under a temporary name, bring it to the disk, and rename it."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        # A pipe: nothing to replace. A link, /dev/stdout above all: a file must not take its place.
        path.write_text(text, encoding="utf-8")
        return
    # The permissions of an ordinary new file, which a NamedTemporaryFile does not have.
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        temporary = Path(folder) / path.name
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
