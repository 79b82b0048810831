"""Spans of time as people write them."""

from __future__ import annotations

import pytest

from paceline.durations import parse_duration
from paceline.errors import UsageError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("60s", 60.0), ("10m", 600.0), ("24h", 86400.0), ("7d", 604800.0), ("1.5h", 5400.0), ("90", 90.0), (" 2 s ", 2.0)],
)
def test_units_are_seconds_minutes_hours_and_days(text: str, seconds: float) -> None:
    assert parse_duration(text, "--expires") == seconds


@pytest.mark.parametrize("text", ["", "s", "-1s", "10 weeks", "1h30m", "nan", "inf", "1e3s", "never"])
def test_anything_else_is_named(text: str) -> None:
    with pytest.raises(UsageError, match=r"--expires is .*: expected a span of time"):
        parse_duration(text, "--expires")
