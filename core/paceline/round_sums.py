"""Further sums that a job's loss gives beside the loss: what they may be called, and what their means are called."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

# Each becomes a column of the ledger's rounds and a series of Prometheus.
MOST_SUMS = 16
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
SUFFIX = "_sum"
# The loss itself, and what rounds are described by.
_TAKEN = frozenset(("loss", "round"))


def mean_name(name: str) -> str:
    """Give the name of a sum's mean."""
    return name.removesuffix(SUFFIX)


def check_sums(sums: Mapping[str, float]) -> None:
    """Refuse sums that cannot be shown.

    Raises:
        ValueError: too many, a name that is none or is taken, or a number that is not finite.
    """
    if len(sums) > MOST_SUMS:
        raise ValueError(f"loss() gave {len(sums)} sums: expected at most {MOST_SUMS}")
    means = [mean_name(name) for name in sums]
    for name, value in sums.items():
        if means.count(mean_name(name)) > 1:
            raise ValueError(f"loss() gave {mean_name(name)!r} twice, with and without {SUFFIX}: expected one")
        if not NAME.fullmatch(name) or not mean_name(name) or mean_name(name) in _TAKEN:
            expected = "expected letters, digits, - and _, and not loss or round"
            raise ValueError(f"loss() gave a sum called {name!r}: {expected}")
        if not math.isfinite(value):
            raise ValueError(f"loss() gave {name} = {value}: expected a finite number")
