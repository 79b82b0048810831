"""The picture of a run in progress: what it says in which room, and never more than fits."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from paceline.cli.picture import Pace, Room, draw, written_s

STATUS: dict[str, Any] = {
    "state": "training", "version": 5, "rounds": 10, "situation": "", "loss": 0.5, "metrics": {"accuracy": 0.9},
    "tasks_used": 80, "tasks_wasted": 3, "worker_s": 12.5, "checkpoint": 4, "decision": "B = 16 in " + "parts " * 30,
    "cost": 1.25,
}  # fmt: skip


def worker(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "name": f"w{number}", "state": "busy", "mean_task_s": 0.0123, "radius_s": 0.001, "allocation": number,
        "tasks_done": 100 * number, "data_share": 0.0, "note": "", **changes,
    }  # fmt: skip


def drawn(width: int, height: int = 30, **changes: Any) -> list[str]:
    stream = io.StringIO()
    console = Console(file=stream, width=width, height=height, force_terminal=True, color_system=None)
    console.print(draw(STATUS | changes, Pace(1.0, 1024.0), Room(width, height)))
    return stream.getvalue().splitlines()


def test_the_bar_has_a_line_of_its_own() -> None:
    head, bar, sums, *_ = drawn(160)
    expected = "round 5 of 10, 5s to go, loss 0.5000, accuracy 0.9, 1 rounds/s, 1024 samples/s, cost 1.25"
    assert head.rstrip() == expected
    assert set(bar.strip()) <= set("━╸╺ ")
    assert sums.rstrip() == "80 tasks used, 3 wasted; 12.5 worker seconds; checkpoint of round 4"


@pytest.mark.parametrize("width", [40, 60, 80, 99, 100, 160])
@pytest.mark.parametrize("workers", [0, 1, 4, 400])
def test_no_line_is_longer_than_the_room_and_there_are_no_more_than_fit(width: int, workers: int) -> None:
    lines = drawn(width, workers=[worker(number, note="set aside " * 9) for number in range(1, workers + 1)])
    assert max(map(len, lines)) <= width
    assert len(lines) < 30
    assert lines[-1].startswith("last decision: B = 16")


def test_on_a_wide_terminal_each_worker_has_a_line() -> None:
    workers = [worker(1, data_share=0.4), worker(12, state="free", mean_task_s=None, radius_s=None, note="left out")]
    lines = [" ".join(line.split()) for line in drawn(160, workers=workers)]
    assert "w1 busy 1 task now 0.0123 s/task +- 0.001 100 done waits for data 40% of the time" in lines
    assert "w12 free 12 tasks now not known yet 1200 done left out" in lines


def test_on_a_narrow_one_they_share_lines() -> None:
    lines = [line.rstrip() for line in drawn(60, workers=[worker(number) for number in (1, 2, 3)])]
    assert "tasks now: w1 1 w2 2 w3 3" in lines


def test_those_for_whom_there_is_no_room_are_counted() -> None:
    many = [worker(number) for number in range(1, 401)]
    assert any(line.startswith("and 378 more workers") for line in drawn(160, workers=many))
    assert any("more workers" in line for line in drawn(60, 12, workers=many))


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0.2, "1s"), (42.4, "42s"), (67, "1m07s"), (3600, "1h00m"), (7500, "2h05m"), (90000, "1d01h"), (86400, "1d")],
)
def test_spans_of_time_have_two_units_at_most(seconds: float, written: str) -> None:
    assert written_s(seconds) == written
