"""Reads and writes how much a network link carries, as people say it: 1Gbit, 100Mbit/s, 12MB/s."""

from __future__ import annotations

import math
import re

from paceline.errors import UsageError

# Seconds of a round's messages, besides what they carry: measured with four workers on one machine
# (docs/benchmarks.md).
ROUND_OVERHEAD_S = 0.005

# Bytes a second. The units of networks are decimal.
_UNITS = {"bit": 0.125, "b": 0.125, "B": 1.0}
_FACTORS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}
_FORM = re.compile(r"(\d+\.?\d*|\.\d+)\s*([kKmMgGtT]?)(bit|b|B)(?:/s|ps)?")


def parse_rate(text: str, what: str = "--link") -> float:
    """Read how much a link carries.

    Args:
        text: such as 1Gbit, 100Mbit/s, 2.5Gbps, 12MB/s; B is bytes, b is bits.
        what: names it in the error.

    Returns:
        Bytes a second, above 0.

    Raises:
        UsageError: it is none.
    """
    match = _FORM.fullmatch(text.strip())
    rate = 0.0
    if match:
        rate = float(match[1]) * _FACTORS[match[2].lower()] * _UNITS[match[3]]
    if not 0.0 < rate < math.inf:
        raise UsageError(f"{what} is {text!r}: expected what a link carries, such as 1Gbit, 100Mbit/s or 12MB/s")
    return rate


def written_rate(bytes_per_s: float) -> str:
    """Write a rate in bits a second, to two digits or three: 31 Mbit/s."""
    bits = 8.0 * bytes_per_s
    for name, factor in (("Gbit/s", 1e9), ("Mbit/s", 1e6), ("kbit/s", 1e3)):
        if bits >= factor:
            return f"{_rounded(bits / factor)} {name}"
    return f"{_rounded(bits)} bit/s"


def written_bytes(count: float) -> str:
    """Write a number of bytes: 12 B, 3.4 kB, 96 MB, 1.2 GB (decimal, as of links)."""
    for name, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{_rounded(count / factor)} {name}"
    return f"{count:.0f} B"


def _rounded(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.2g}" if value < 10 else f"{value:.3g}"
