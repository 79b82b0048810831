"""Curves of bounded length, rounds of all lives on one clock, and what applied tasks tell of a worker's speed."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from paceline.server import history as history_module
from paceline.server.history import MOST_POINTS, MOST_ROUNDS, History, Thinned
from tests.server.records import TASKS, round_record


def history_of(rounds: int, names: tuple[str, ...] = ("w1", "w2")) -> History:
    history = History(radius_constant=2.0)
    for number in range(1, rounds + 1):
        history.add(round_record(number, names))
    return history


@pytest.mark.parametrize("items", [0, 1, 7, 8, 9, 1000, 4097])
def test_a_thinned_curve_stands_for_all_items_but_those_of_the_last_point(items: int) -> None:
    curve: Thinned[tuple[int, ...]] = Thinned(lambda first, _, second, __: first + second, most=8)
    for number in range(items):
        curve.add((number,))
    assert len(curve.points) < 8
    assert all(len(point) == curve.stride for point in curve.points)
    assert sum((*curve.points, *curve.unfinished), ()) == tuple(range(items))
    assert len(sum(curve.unfinished, ())) < curve.stride


def test_however_long_a_run_few_items_wait_for_their_point() -> None:
    curve: Thinned[float] = Thinned(lambda one, n, other, m: (n * one + m * other) / (n + m), most=8)
    for number in range(100_003):
        curve.add(float(number))
    assert len(curve._waiting) <= 16
    since = curve.stride * len(curve.points)
    assert curve.unfinished == [pytest.approx((since + 100_002) / 2)]
    assert curve.points[0] == pytest.approx((curve.stride - 1) / 2)


def test_points_of_the_curve_are_means_of_their_rounds() -> None:
    history = History(2.0)
    for number in range(1, 2 * MOST_POINTS + 1):
        history.add(round_record(number, loss=math.nan if number == 1 else float(number)))
    assert history.rounds.stride == 4
    first, second = history.rounds.points[:2]
    assert (first.round, first.loss) == (4, 2.75)  # the mean of 2, for one has no loss, and 3.5
    assert (second.round, second.loss) == (8, 6.5)
    assert second.seconds == pytest.approx(0.5 + 6.5 / 1000)


def test_the_latest_rounds_are_few_and_fewer_with_many_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [record.round for record in history_of(100).latest] == list(range(101 - MOST_ROUNDS, 101))
    monkeypatch.setattr(history_module, "MOST_BARS", 9)
    assert [record.round for record in history_of(100).latest] == [97, 98, 99, 100]
    assert [record.round for record in history_of(5, tuple(f"w{n}" for n in range(20))).latest] == [5]


def test_what_is_learned_is_the_mean_and_a_radius_that_shrinks() -> None:
    few, many = (history_of(rounds).learned(rounds)[0] for rounds in (3, 300))
    assert few[0] == pytest.approx(0.3 / (TASKS - 1))
    assert many[0] == pytest.approx(0.3 / (TASKS - 1))
    assert 0 < many[1] < few[1] / 4


def test_a_worker_that_did_nothing_is_not_learned() -> None:
    history = History(2.0)
    record = round_record(1)
    idle = replace(record.workers[1], used=0, used_s=0.0)
    history.add(replace(record, workers=(record.workers[0], idle)))
    assert (history.learners, len(history.learned(1))) == (["w1"], 1)


def test_only_so_many_workers_are_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "MOST_LEARNED", 3)
    history = history_of(2, tuple(f"w{n}" for n in range(9)))
    assert len(history.rounds.points[-1].learned) == 3


def test_the_clock_of_a_new_life_goes_on_where_the_last_one_stood() -> None:
    history = history_of(3)
    closed_s = history.latest[-1].opened_s + history.latest[-1].seconds
    fourth = history.add(replace(round_record(4), opened_s=0.25))
    fifth = history.add(replace(round_record(5), opened_s=1.25))
    assert fourth.opened_s == closed_s
    assert fifth.opened_s == pytest.approx(closed_s + 1.0)
