"""What a running run looks like: on a terminal a picture that redraws itself, elsewhere plain lines."""

import io
from typing import Any

from rich.console import Console

from paceline.cli.picture import Pace, headline
from paceline.cli.progress import LineProgress, LiveProgress, Rate, make_progress

STATUS: dict[str, Any] = {
    "state": "training",
    "situation": "",
    "round": 4,
    "rounds": 10,
    "version": 3,
    "loss": 0.25,
    "metrics": {"accuracy": 0.975, "odd": None},
    "workers": [
        {
            "name": "w1",
            "state": "busy",
            "mean_task_s": 0.0123,
            "radius_s": 0.001,
            "allocation": 3,
            "tasks_done": 40,
            "data_share": 0.0,
            "note": "",
        },
    ],
}


def shown(terminal: bool) -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    return Console(file=stream, force_terminal=terminal, width=100, color_system=None), stream


def test_a_terminal_gets_a_picture_and_everything_else_lines() -> None:
    assert isinstance(make_progress(shown(terminal=True)[0]), LiveProgress)
    assert isinstance(make_progress(shown(terminal=False)[0]), LineProgress)


def test_lines_are_plain_and_one_per_status() -> None:
    console, stream = shown(terminal=False)
    progress = LineProgress(console, "1/3 greedy")
    progress.note("w1: [bold]not markup[/bold]")
    progress.show(STATUS)
    progress.close()
    first, second = stream.getvalue().splitlines()
    assert first == "w1: [bold]not markup[/bold]"
    assert second.startswith("1/3 greedy: round 3 of 10, ")
    assert "loss 0.2500, accuracy 0.975" in second


def test_the_picture_holds_the_headline_and_a_line_for_each_worker() -> None:
    console, stream = shown(terminal=True)
    progress = LiveProgress(console, "greedy")
    progress.note("w1: [bold]not markup[/bold]")
    progress.show(STATUS)
    progress.close()
    drawn = stream.getvalue()
    assert "w1: [bold]not markup[/bold]" in drawn
    assert "greedy  round 3 of 10" in drawn
    assert "w1  busy      3 tasks now     0.0123 s/task +- 0.001" in drawn


def test_before_the_first_update_the_headline_says_what_is_waited_for() -> None:
    waiting = STATUS | {"state": "waiting", "situation": "1 of 4 workers are ready", "version": 0}
    assert headline(waiting, Pace()) == "1 of 4 workers are ready"


def test_the_rate_is_that_of_the_last_seconds(monkeypatch: Any) -> None:
    now_s = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now_s)
    rate = Rate(over_s=5.0)
    assert rate.update({"version": 0}) == Pace()
    for version in range(10, 101, 10):
        now_s += 1.0
        rate.update({"version": version})
    assert rate.update({"version": 100, "tasks_used": 0}).rounds == 10.0
    now_s += 60.0
    assert rate.update({"version": 160}).rounds == 1.0


def test_samples_a_second_are_those_that_were_used(monkeypatch: Any) -> None:
    now_s = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now_s)
    rate = Rate(over_s=5.0)
    rate.update({"version": 1, "tasks_used": 16, "micro_batch": 32})
    now_s += 2.0
    assert rate.update({"version": 3, "tasks_used": 48, "micro_batch": 32}) == Pace(1.0, 512.0)
