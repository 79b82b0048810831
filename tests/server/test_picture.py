"""The page's document: a page that asks for what is new ends up with the same as one that asks for all."""

from __future__ import annotations

import gzip
import json
import math
from typing import Any

import pytest

from paceline.server.history import History
from paceline.server.picture import MOST_LINES, START, Cursor, Picture, parse_cursor, short
from paceline.server.status import Situation
from paceline.server.totals import Totals
from paceline.settings import RunSettings
from tests.server.records import round_record, snapshot, worker_snapshot

SITUATION = Situation(rounds=100, elapsed_s=12.5, run_dir="runs/a", metrics={"accuracy": 0.9})


class Scene:
    def __init__(self, names: tuple[str, ...] = ("w1", "w2"), run: int = 1, **settings: Any) -> None:
        self.names = names
        self.totals, self.history = Totals(), History(2.0)
        told = RunSettings(job="digits.py:Digits", tasks=8, **settings)
        self.picture = Picture(told, self.totals, self.history, run)

    def rounds(self, first: int, last: int) -> None:
        for number in range(first, last + 1):
            record = round_record(number, self.names)
            self.totals.observe(record)
            self.history.add(record)
            if number % 10 == 0:
                self.history.evaluated(number, {"accuracy": number / 1000})

    def document(self, has: Cursor = START) -> dict[str, Any]:
        shown = snapshot(*(worker_snapshot(name, mean_task_s=0.1) for name in self.names))
        return self.picture.document(shown, SITUATION, has)


def merged(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """What page.js makes of the documents that it got."""
    curve: dict[str, list[Any]] = {}
    measured: list[int] = []
    rounds: list[Any] = []
    means: list[list[Any]] = []
    for part in parts:
        since = part["curve"].pop("since")
        curve = {name: curve.get(name, [])[:since] + values for name, values in part["curve"].items()}
        lines = part["learned"]["mean_s"]
        means = [(means[i][:since] if since else []) + line for i, line in enumerate(lines)]
        measured = measured[: part["measured"]["since"]] + part["measured"]["round"]
        rounds = [*rounds, *part["timeline"]["rounds"]]
    return {"curve": curve, "means": means, "measured": measured, "rounds": rounds[-40:]}


@pytest.mark.parametrize("steps", [(1, 2, 3), (5, 100, 101), (250, 255, 256, 257), (300, 700, 1400)])
def test_increments_add_up_to_the_whole(steps: tuple[int, ...]) -> None:
    scene = Scene()
    parts, before, cursor = [], 0, START
    for step in steps:
        scene.rounds(before + 1, step)
        before = step
        parts.append(scene.document(cursor))
        cursor = parse_cursor(parts[-1]["cursor"])
    assert merged(parts) == merged([scene.document()])
    nothing_new = scene.document(cursor)
    assert nothing_new["timeline"]["rounds"] == []
    # But for a point that stands for fewer rounds than the others: the last one.
    assert nothing_new["curve"]["round"] in ([], [steps[-1]])
    assert scene.document()["curve"]["round"][-1] == steps[-1]
    assert (scene.document()["measured"]["round"] or [0])[-1] == steps[-1] // 10 * 10


def test_a_page_of_another_run_or_of_other_workers_gets_all() -> None:
    scene = Scene()
    scene.rounds(1, 20)
    ahead = parse_cursor(scene.document()["cursor"])
    fresh = Scene()
    fresh.rounds(1, 3)
    assert fresh.document(ahead)["curve"] == fresh.document()["curve"]
    # Another run that is further already.
    again = Scene(run=2)
    again.rounds(1, 30)
    assert again.document(ahead)["curve"] == again.document()["curve"]
    other = Scene(names=("w1", "w3"))
    other.rounds(1, 20)
    assert other.document(ahead)["learned"] == other.document()["learned"]


@pytest.mark.parametrize(
    "text", ["", "x", "1.2.3.4.5.6", "1.2.3.4.5.6.7.8", "-1.2.3.4.5.6.7", "1.2.3.4.5.6.99999999999", "1" * 10**5]
)
def test_a_cursor_that_is_none_stands_for_nothing(text: str) -> None:
    assert parse_cursor(text) == START


def test_cursors_come_back_as_they_went() -> None:
    cursor = Cursor(2, 3, 4, 5, 6, 7, 8)
    assert parse_cursor(str(cursor)) == cursor


def test_costs_and_other_ways_are_estimated_from_learned_speeds() -> None:
    scene = Scene(price={"w1": 36.0, "*": 72.0})
    scene.rounds(1, 10)
    document = scene.document()
    # Each worker computed 0.4 s in each of ten rounds.
    assert document["now"]["cost"] == pytest.approx(0.04 + 0.08)
    assert [worker["cost"] for worker in document["workers"]] == pytest.approx([0.04, 0.08])
    # Eight tasks of 0.1 s, four each: 0.4 s a round for both, whoever shares them out.
    ways = {way["name"]: (way["seconds"], way["worker_s"]) for way in document["ways"]}
    assert ways == dict.fromkeys(("oracle", "uniform", "greedy"), (4.0, 8.0))
    assert document["ways"][0]["cost"] == pytest.approx(0.12)


def test_other_ways_are_those_of_the_workers_that_are_there() -> None:
    scene = Scene(names=("w1",))
    scene.rounds(1, 10)
    gone = [worker_snapshot(f"g{number}", state="lost", mean_task_s=0.1) for number in range(20)]
    shown = snapshot(worker_snapshot("w1", mean_task_s=0.1), *gone)
    ways = {way["name"]: way["worker_s"] for way in scene.picture.document(shown, SITUATION)["ways"]}
    assert ways == dict.fromkeys(("oracle", "uniform", "greedy"), 8.0)
    assert scene.document()["now"]["rounds_s"] == pytest.approx(5.055)


def test_where_each_result_makes_an_update_a_round_is_one_task() -> None:
    scene = Scene(names=("w1",), policy="asgd")
    scene.rounds(1, 10)
    assert scene.document()["ways"][0]["seconds"] == pytest.approx(1.0)


def test_before_the_first_round_there_is_a_document_too() -> None:
    document = Scene().document()
    assert (document["now"]["loss"], document["ways"], document["now"]["cost"]) == (None, [], None)
    json.dumps(document, allow_nan=False)


def test_numbers_that_json_has_not_are_null() -> None:
    scene = Scene()
    record = round_record(1, loss=math.nan)
    scene.totals.observe(record)
    scene.history.add(record)
    document = scene.document()
    assert (document["now"]["loss"], document["curve"]["loss"]) == (None, [None])
    assert (short(math.inf), short(None), short(0.123456)) == (None, None, 0.1235)


def test_four_hundred_workers_fit_into_a_document_and_few_are_drawn_as_lines() -> None:
    names = tuple(f"w{number}" for number in range(1, 401))
    scene = Scene(names)
    scene.rounds(1, 300)
    document = scene.document()
    assert document["learned"]["workers"] == ["w1", *document["learned"]["workers"][1:-1], "w400"]
    assert len(set(document["learned"]["workers"])) == MOST_LINES
    assert len(document["workers"]) == 400
    assert len(document["timeline"]["rounds"]) == 10
    later = gzip.compress(json.dumps(scene.document(parse_cursor(document["cursor"]))).encode())
    assert len(later) < 20_000
