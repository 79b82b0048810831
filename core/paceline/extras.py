"""Imports what only an extra installs, when it is needed."""

from __future__ import annotations

import importlib
from types import ModuleType

from paceline.errors import UsageError


def needed(module: str, extra: str, who: str) -> ModuleType:
    """Import a library that somebody needs.

    Args:
        extra: of paceline, which installs it.

    Raises:
        UsageError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(f"{who} needs {error.name or module}: pip install 'paceline[{extra}]'") from error
