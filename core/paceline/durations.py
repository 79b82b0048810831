"""Reads spans of time as people write them: 60s, 10m, 24h, 7d."""

from __future__ import annotations

import re

from paceline.errors import UsageError

_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_FORM = re.compile(r"(\d+\.?\d*|\.\d+)\s*([smhd]?)")


def parse_duration(text: str, what: str) -> float:
    """Read a span of time; a number without a unit is seconds.

    Args:
        text: such as 90, 60s, 1.5h.
        what: names it in the error.

    Returns:
        Seconds, at least 0.

    Raises:
        UsageError: it is none.
    """
    match = _FORM.fullmatch(text.strip())
    if not match:
        raise UsageError(f"{what} is {text!r}: expected a span of time, such as 60s, 10m, 24h or 7d")
    return float(match[1]) * _UNITS_S[match[2] or "s"]
