"""How this package compiles: numba without the interpreter, IEEE arithmetic kept bit for bit.

Compiled code is kept in the user's cache folder, under a name made of this package's sources: numba itself would not
see that a function in another file, compiled into its caller, has changed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np

from paceline.allocation import uniform
from paceline.simulation import shapes

F = TypeVar("F", bound=Callable[..., object])


def _cache_folder() -> Path | None:
    """Make the folder for what these very sources compile to (two others have constants of theirs); None: no cache."""
    sources = [*sorted(Path(__file__).parent.glob("*.py")), Path(shapes.__file__), Path(uniform.__file__)]
    digest = hashlib.blake2b(f"{numba.__version__} {np.__version__}".encode(), digest_size=8)
    for source in sources:
        digest.update(source.read_bytes())
    try:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = caches / "paceline" / f"compiled-{digest.hexdigest()}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder if os.access(folder, os.W_OK) else None
    except (OSError, RuntimeError):  # No home, or none that can be written.
        return None


_CACHE = _cache_folder()

_NUMBA: Any = numba.config
"""Numba looks there for the folder when a function is decorated."""


def compiled(function: F) -> F:
    """Compile a function at its first call for each set of argument types.

    Never with `fastmath`: scores must have the same bits as numpy's. Division by zero gives inf and nan as in numpy,
    which also lets loops over workers use vector instructions.
    """
    if _CACHE is None:
        return cast(F, numba.njit(error_model="numpy")(function))
    elsewhere = _NUMBA.CACHE_DIR
    _NUMBA.CACHE_DIR = str(_CACHE)
    try:
        return cast(F, numba.njit(error_model="numpy", cache=True)(function))
    finally:
        _NUMBA.CACHE_DIR = elsewhere
