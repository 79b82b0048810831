"""What worker seconds cost, at prices of an hour."""

from __future__ import annotations

import pytest

from paceline.cli.commands import parse_prices
from paceline.coordination.ids import WorkerName
from paceline.errors import UsageError
from paceline.server.totals import Totals, WorkerTotals
from paceline.settings import RunSettings


def totals() -> Totals:
    made = Totals()
    made.workers = {
        WorkerName("w1"): WorkerTotals(used_s=1800.0, wasted_s=1800.0),
        WorkerName("w2"): WorkerTotals(used_s=360.0),
    }
    return made


def test_used_and_wasted_seconds_are_paid_by_the_hour() -> None:
    assert totals().cost({"w1": 3.0, "w2": 10.0}) == pytest.approx(4.0)
    assert totals().cost({"*": 1.0}) == pytest.approx(1.1)
    assert totals().cost({"*": 1.0, "w1": 0.0}) == pytest.approx(0.1)


def test_who_has_no_price_costs_nothing_and_without_prices_nothing_is_said() -> None:
    assert totals().cost({"w1": 3.0}) == pytest.approx(3.0)
    assert totals().cost({"w9": 3.0}) is None
    assert totals().cost(None) is None


def test_prices_are_read_for_all_or_by_name() -> None:
    assert parse_prices("2.5") == {"*": 2.5}
    assert parse_prices("w1=2.5, w2=0.4") == {"w1": 2.5, "w2": 0.4}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("cheap", "--price has 'cheap' for a number"),
        ("1,2", "expected one price for all"),
        ("w1=1,w1=2", "one for each"),
    ],
)
def test_prices_that_are_none_are_refused(text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        parse_prices(text)


def test_a_price_below_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"price of worker 'w1' is -1.0: expected at least 0 an hour"):
        RunSettings(job="a.py:A", price={"w1": -1.0})
