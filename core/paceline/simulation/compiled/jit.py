"""How this package compiles: numba without the interpreter, IEEE arithmetic kept bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """Compile a function at its first call for each set of argument types.

    Never with `fastmath`: scores must have the same bits as numpy's. Division by zero gives inf and nan as in numpy,
    which also lets loops over workers use vector instructions.
    """
    return cast(F, numba.njit(error_model="numpy")(function))
