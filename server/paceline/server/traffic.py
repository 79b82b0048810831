"""Counts tensor bytes in and out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Traffic:
    """Tensor bytes that workers pulled and pushed, inside messages or in chunks; framing not counted."""

    pulled_bytes: int = 0
    pushed_bytes: int = 0
