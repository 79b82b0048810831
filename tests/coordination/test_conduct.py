"""A worker's word: seconds that cannot have passed, numbers that cannot be, contributions refused again and again."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from paceline.coordination import Machine, MachineSettings, joining
from paceline.coordination.effects import LeaseRecord, RefusePush, SendLease, StagePush, WorkerChanged
from paceline.coordination.events import ContributionRejected, Rejection
from paceline.coordination.state import NAMES_KEPT
from tests.coordination.policies import OneEach
from tests.coordination.scene import Scene, Worker, of, one, result

STILL = 1e6


def scene_of(*, slack_s: float = 0.0, strikes: int = 3) -> tuple[Scene, Worker, Worker]:
    """Two workers with a round of two tasks each, kept in advance."""
    scene = Scene(
        "fixed", min_workers=2, silent_after_s=STILL, progress_s=STILL, clock_slack_s=slack_s, strikes=strikes
    )
    return scene, scene.join("a"), scene.join("b")


def recorded(scene: Scene, worker: str) -> list[float]:
    (record,) = [record for record in of(scene.log, LeaseRecord) if record.worker == worker]
    return [task.seconds for task in record.results]


def test_seconds_that_have_passed_are_believed_to_the_bit() -> None:
    scene, a, b = scene_of()
    for seconds, task in ((0.3, 0), (0.7, 1)):
        scene.wait(seconds)
        a.report(task, seconds=seconds)
    a.offer(results=(result(0, 0.3), result(1, 0.7)))
    scene.verify(one(scene.log, StagePush).push)
    scene.wait(9.0)
    b.work()
    assert recorded(scene, "a") == [0.3, 0.7]


def test_seconds_beyond_the_lease_are_cut_to_what_has_passed() -> None:
    scene, a, b = scene_of()
    scene.wait(10.0)
    a.report(0, seconds=4.0)
    a.report(1, seconds=1e9)
    a.offer(results=(result(0, 4.0), result(1, 1e9)))
    scene.verify(one(scene.log, StagePush).push)
    b.work()
    assert recorded(scene, "a") == [4.0, pytest.approx(6.1)]
    (busy_s,) = [worker.busy_s for worker in scene.machine.machine.snapshot(scene.now).workers if worker.name == "a"]
    assert busy_s == pytest.approx(10.1)


def test_seconds_that_were_wasted_are_cut_too() -> None:
    scene, a, b = scene_of()
    scene.wait(2.0)
    scene.refuse(a.lease.lease)
    a.end(wasted_s=1e9)
    b.work()
    scene.finish_round(a, b)
    (wasted_s,) = [worker.wasted_s for worker in scene.rounds[0].workers if worker.name == "a"]
    assert wasted_s == pytest.approx(2.02)


def test_numbers_of_a_report_that_cannot_be_are_passed_over() -> None:
    scene, a, _b = scene_of(slack_s=STILL)
    before = scene.machine.machine.snapshot(scene.now)
    for wrong in (math.nan, math.inf, -1.0):
        assert a.report(0, seconds=wrong) == []
    assert scene.machine.machine.snapshot(scene.now) == before


@pytest.mark.parametrize(
    "wrong", [{"seconds": math.nan}, {"seconds": -0.1}, {"loss_sum": math.inf}, {"samples": -1}, {"samples": 65}]
)
def test_contribution_with_numbers_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    scene = Scene("fixed", min_workers=2, silent_after_s=STILL, progress_s=STILL, most_samples=64)
    a, _b = scene.join("a"), scene.join("b")
    effects = a.offer(results=(result(0), replace(result(1), **wrong)))
    assert one(effects, RefusePush).rejection is Rejection.NON_FINITE


def refuse_one(scene: Scene, a: Worker, b: Worker) -> str:
    """Have one of a's contributions refused; give what is said of it."""
    while a.leases[-1].lease in scene.over:
        b.work(b.next_lease())
    return one(a.offer([99]), WorkerChanged).reason


def test_every_so_many_refused_contributions_cost_a_time_out_that_doubles_up_to_an_hour() -> None:
    scene, a, b = scene_of(slack_s=STILL, strikes=2)
    pauses = []
    for _ in range(20):
        reason = refuse_one(scene, a, b)
        pauses.append(float(reason.split(" for ")[1].split(" s:")[0]))
        scene.wait(4000.0)
    assert pauses[:6] == [1, 60, 4, 120, 16, 240]
    assert pauses[-1] == 3600


def test_status_says_why_a_worker_gets_no_tasks() -> None:
    scene, a, b = scene_of(slack_s=STILL, strikes=1)
    refuse_one(scene, a, b)

    def note() -> str:
        (worker,) = [one for one in scene.machine.machine.snapshot(scene.now).workers if one.name == "a"]
        return worker.note

    assert note().startswith("gets no tasks for 60 s: 1 of its contributions were refused (the last: wrong-tasks: ")
    scene.wait(61.0)
    assert note() == ""


def test_new_process_of_the_name_stays_aside() -> None:
    scene, a, b = scene_of(slack_s=STILL, strikes=1)
    refuse_one(scene, a, b)
    a.cut()
    scene.wait(2.0)
    again = scene.join("a", "a2")
    scene.finish_round(b)
    scene.finish_round(b)
    assert not again.leases
    scene.wait(60.0)
    scene.finish_round(b)
    assert again.leases


def test_what_is_held_against_a_name_outlives_the_server() -> None:
    scene, a, b = scene_of(slack_s=STILL, strikes=1)
    scene.finish_round(a, b)
    refuse_one(scene, a, b)
    scene.wait(10.0)
    cut = scene.machine.machine.cut(scene.now)
    assert cut is not None
    (held,) = cut.held
    assert (held.name, held.refused, held.aside_s) == ("a", 1, 50.0)
    policy = OneEach(1)
    policy.name = "fixed"
    life = Scene(policy, silent_after_s=STILL, progress_s=STILL)
    settings = MachineSettings(tasks=4, life=2, silent_after_s=STILL, progress_s=STILL)
    life.machine.machine = Machine(settings, policy, cut)
    assert not life.join("a").leases
    life.wait(50.0)
    assert of(life.log, SendLease)


def test_late_contribution_is_not_held_against_its_worker() -> None:
    scene, a, b = scene_of(slack_s=STILL, strikes=1)
    old = a.lease
    scene.refuse(old.lease)
    a.end()
    scene.finish_round(a, b)
    assert one(a.offer(lease=old), RefusePush).rejection is Rejection.STALE
    push = one(a.offer(), StagePush).push
    assert scene.machine.machine._state.conduct == {}
    scene.do(ContributionRejected(push, Rejection.CHECKSUM, "bits flipped"))
    assert [held.refused for held in scene.machine.machine._state.conduct.values()] == [1]


def test_slow_contribution_costs_a_short_pause_however_often() -> None:
    scene, a, b = scene_of(slack_s=STILL, strikes=1)
    push = one(a.offer(), StagePush).push
    scene.do(ContributionRejected(push, Rejection.TOO_SLOW, "too few bytes a second"))
    (held,) = scene.machine.machine._state.conduct.values()
    assert (held.refused, held.aside_until) == (0, 1.0)
    scene.finish_round(b)


def test_so_many_names_are_remembered_and_no_more() -> None:
    scene, a, b = scene_of(slack_s=STILL, strikes=1)
    state = scene.machine.machine._state
    for number in range(NAMES_KEPT):
        state.conduct_of(f"x{number}").aside_until = float(number)  # type: ignore[arg-type]
    refuse_one(scene, a, b)
    assert len(state.conduct) == NAMES_KEPT
    assert "a" in state.conduct
    assert "x0" not in state.conduct


def test_names_that_come_and_go_are_forgotten_and_workers_that_worked_last_of_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(joining, "NAMES_KEPT", 20)
    scene, a, b = scene_of(slack_s=STILL)
    scene.finish_round(a, b)
    b.work()
    b.drain()
    for number in range(100):
        scene.join(f"x{number}").drain()
    state = scene.machine.machine._state
    assert (len(state.departed), len(state.statistics)) == (20, 21)
    assert ("b", "cpu") in state.statistics
    assert ("a", "cpu") in state.statistics
    assert "b" not in state.departed
    a.work()
    scene.finish_round(a)
