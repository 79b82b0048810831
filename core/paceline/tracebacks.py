"""Reduces a traceback to the user's own part: from his first frame on, without paceline's and the import system's."""

from __future__ import annotations

import traceback
from pathlib import Path

# core/paceline in a working copy, site-packages/paceline in an install; the other portions end in the same folder name.
_OURS = str(Path(__file__).resolve().parent)
_IMPORT_SYSTEM = ("<frozen importlib", "<frozen runpy")


def users_traceback(error: BaseException) -> str:
    """Format an error that user code raised, without the frames that led to that code.

    Returns:
        What Python prints, ending in a newline; chained errors ("During handling of ...") included.
    """
    report = traceback.TracebackException.from_exception(error)
    link: traceback.TracebackException | None = report
    while link is not None:
        link.stack = traceback.StackSummary.from_list([frame for frame in link.stack if not _is_ours(frame.filename)])
        link = link.__cause__ or link.__context__
    return "".join(report.format())


def describe(error: BaseException) -> str:
    """Give an error in one line: its type and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _is_ours(filename: str) -> bool:
    return filename.startswith(_IMPORT_SYSTEM) or Path(filename).parent == Path(_OURS)
