"""Rates of links are read as people write them."""

from __future__ import annotations

import pytest

from paceline.errors import UsageError
from paceline.link_rates import parse_rate, written_bytes, written_rate


@pytest.mark.parametrize(
    ("text", "bytes_per_s"),
    [
        ("1Gbit", 125e6),
        ("100 Mbit/s", 12.5e6),
        ("2.5Gbps", 312.5e6),
        ("12MB/s", 12e6),
        ("12Mb/s", 1.5e6),
        ("640kbit", 80e3),
        (".5TB", 0.5e12),
    ],
)
def test_usual_forms_are_read(text: str, bytes_per_s: float) -> None:
    assert parse_rate(text) == pytest.approx(bytes_per_s)


@pytest.mark.parametrize("text", ["", "fast", "100", "0Mbit", "-1Gbit", "1Gbit/h", "nanMbit", f"1{'0' * 400}Gbit"])
def test_others_are_refused_by_name(text: str) -> None:
    with pytest.raises(UsageError, match=r"--link is .*: expected what a link carries, such as 1Gbit"):
        parse_rate(text)


def test_rates_and_bytes_are_written_short() -> None:
    rates = (3.9e6, 1.25e9, 12.4, 15e3)
    assert [written_rate(rate) for rate in rates] == ["31.2 Mbit/s", "10 Gbit/s", "99.2 bit/s", "120 kbit/s"]
    counts = (12, 3_400, 96e6, 1.23e9, 190_440)
    assert [written_bytes(count) for count in counts] == ["12 B", "3.4 kB", "96 MB", "1.2 GB", "190 kB"]
