"""The coordinator's cut: what it has, when it is ordered, and how a new life goes on from it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from paceline.coordination import Machine, MachineSettings
from paceline.coordination.cut import Cut
from paceline.coordination.effects import Finish, Outcome, RefusePush, SaveCheckpoint, Warn
from paceline.coordination.events import (
    CheckpointRequested,
    CheckpointSaved,
    StopRequested,
    UpdateApplied,
    UpdateFailed,
)
from paceline.coordination.ids import TaskId
from paceline.coordination.policies import PolicyOptions, make_policy
from paceline.errors import UsageError
from tests.coordination.policies import OneEach
from tests.coordination.scene import Scene, Worker, of, one

STILL: dict[str, Any] = {"silent_after_s": 1e6, "progress_s": 1e6}


def two_workers(**settings: Any) -> tuple[Scene, Worker, Worker]:
    scene = Scene("fixed", min_workers=2, **{**STILL, **settings})
    return scene, scene.join("a"), scene.join("b")


def cut_of(scene: Scene) -> Cut:
    """Take the machine's cut, through its file's form."""
    cut = scene.machine.machine.cut(scene.now)
    assert cut is not None
    again = Cut.from_json(json.loads(json.dumps(cut.to_json())))
    assert again == cut
    return again


def next_life(scene: Scene, cut: Cut, **settings: Any) -> Scene:
    """Go on from a cut with a machine and a policy of their own."""
    other = Scene("fixed", **{**STILL, "life": 2, **settings})
    policy = make_policy("fixed", PolicyOptions(means_s=dict.fromkeys("abcdefgh", 1.0)), rng=np.random.default_rng(1))
    other.machine.machine = Machine(MachineSettings(**{"tasks": 4, **STILL, "life": 2, **settings}), policy, cut)
    return other


def test_cut_between_commits_has_what_is_not_applied_in_the_version() -> None:
    scene, a, b = two_workers()
    scene.finish_round(a, b)
    a.work()
    cut = cut_of(scene)
    assert (cut.version, cut.next_tasks, cut.returned) == (1, (4,), ())
    life = next_life(scene, cut)
    a, b = life.join("a"), life.join("b")
    life.finish_round(a, b)
    assert (life.rounds[0].round, life.applied()) == (2, [[4, 5, 6, 7]])


def test_tasks_in_hand_at_the_commit_are_done_again() -> None:
    scene = Scene(OneEach(1, cancel=False, max_staleness=None), tasks=1, min_workers=2)
    a, b = scene.join("a"), scene.join("b")
    a.report(0)
    a.deliver([0])
    assert b.lease.tasks == (1,)
    cut = cut_of(scene)
    assert 1 in cut.returned
    assert cut.version == 1


def test_statistics_and_attempts_outlive_the_server() -> None:
    policy = OneEach(1, cancel=False, max_staleness=None)
    scene = Scene(policy, tasks=1, min_workers=2, silent_after_s=1e6, progress_s=1e6)
    a, b = scene.join("a"), scene.join("b")
    a.report(0)
    a.deliver([0])
    b.fail(1)
    cut = cut_of(scene)
    known = [(worker.name, worker.tasks_done, worker.first_round) for worker in cut.workers]
    assert known == [("a", 1, 1), ("b", 0, 1)]
    assert [attempt.message for attempt in cut.attempts[TaskId(1)]] == ["boom"]
    life = Scene(policy, tasks=1, silent_after_s=1e6, progress_s=1e6)
    life.machine.machine = Machine(MachineSettings(tasks=1, silent_after_s=1e6, progress_s=1e6), policy, cut)
    b = life.join("b")
    assert b.lease.tasks == (1,)
    # It is alone, and this is its second attempt.
    assert one(b.fail(1), Finish).outcome is Outcome.FAILED


def test_failed_run_is_resumed_to_try_its_task_again() -> None:
    scene, a, b = two_workers(attempts=1)
    scene.finish_round(a, b)
    task = a.lease.tasks[0]
    a.fail(task)
    assert scene.log[-1] == of(scene.log, Finish)[-1]
    assert cut_of(scene).attempts == {}


def test_no_cut_while_the_next_version_is_made_or_after_that_failed() -> None:
    scene = Scene("fixed", tasks=1, updates=False, **STILL)
    scene.join("a").work()
    assert scene.machine.machine.cut(scene.now) is None
    scene.do(UpdateFailed("the optimizer raised ValueError"))
    assert scene.machine.machine.cut(scene.now) is None


def test_checkpoint_is_ordered_every_so_many_rounds_before_the_next_plan() -> None:
    scene, a, b = two_workers(checkpoint_rounds=2)
    for _ in range(5):
        scene.finish_round(a, b)
        for order in of(scene.log, SaveCheckpoint)[-1:]:
            scene.do(CheckpointSaved(order.cut.version))
    orders = of(scene.log, SaveCheckpoint)
    assert [order.cut.version for order in orders] == [2, 4]
    place = scene.log.index(orders[0])
    assert type(scene.log[place - 1]).__name__ == "RoundRecord"
    assert type(scene.log[place + 1]).__name__ == "RoundPlanned"


def test_checkpoint_is_ordered_at_the_first_commit_after_so_many_seconds() -> None:
    scene, a, b = two_workers(checkpoint_s=60.0)
    scene.finish_round(a, b)
    assert not of(scene.log, SaveCheckpoint)
    scene.wait(60.0)
    scene.finish_round(a, b)
    assert one(scene.log, SaveCheckpoint).cut.version == 2


def test_one_checkpoint_at_a_time() -> None:
    scene, a, b = two_workers(checkpoint_rounds=1)
    for _ in range(3):
        scene.finish_round(a, b)
    assert [order.cut.version for order in of(scene.log, SaveCheckpoint)] == [1]
    scene.do(CheckpointSaved(1))
    scene.finish_round(a, b)
    assert [order.cut.version for order in of(scene.log, SaveCheckpoint)] == [1, 4]


def test_one_that_could_not_be_saved_is_said_and_tried_when_it_is_due_again() -> None:
    scene, a, b = two_workers(checkpoint_rounds=2)
    for _ in range(2):
        scene.finish_round(a, b)
    assert "no room" in one(scene.do(CheckpointSaved(2, "no room")), Warn).text
    for _ in range(2):
        scene.finish_round(a, b)
    assert [order.cut.version for order in of(scene.log, SaveCheckpoint)] == [2, 4]


def test_requested_checkpoint_comes_at_once_or_with_the_version_that_is_being_made() -> None:
    scene = Scene("fixed", tasks=1, updates=False, **STILL)
    a = scene.join("a")
    assert one(scene.do(CheckpointRequested()), SaveCheckpoint).cut.version == 0
    scene.do(CheckpointSaved(0))
    a.work()
    assert not of(scene.do(CheckpointRequested()), SaveCheckpoint)
    assert one(scene.do(UpdateApplied(version=1, loss=0.0)), SaveCheckpoint).cut.version == 1


def test_request_while_one_is_being_saved_is_met_by_the_next() -> None:
    scene, _a, _b = two_workers()
    scene.do(CheckpointRequested())
    assert not of(scene.do(CheckpointRequested()), SaveCheckpoint)
    one(scene.do(CheckpointSaved(0)), SaveCheckpoint)


def test_nothing_is_ordered_when_the_run_is_over() -> None:
    scene, a, b = two_workers(rounds=2, checkpoint_rounds=2)
    for _ in range(2):
        scene.finish_round(a, b)
    assert one(scene.log, Finish).outcome is Outcome.DONE
    assert not of(scene.log, SaveCheckpoint)
    assert not scene.do(CheckpointRequested())
    assert cut_of(scene).version == 2


def test_cut_after_an_abandoned_round_is_that_of_the_last_commit() -> None:
    scene, a, b = two_workers()
    scene.finish_round(a, b)
    a.work()
    scene.do(StopRequested("SIGTERM", grace_s=0.0))
    cut = cut_of(scene)
    assert (cut.version, cut.next_tasks, cut.returned) == (1, (4,), ())


def test_lease_of_an_earlier_life_is_void() -> None:
    scene, a, b = two_workers()
    scene.finish_round(a, b)
    old = a.lease.lease
    life = next_life(scene, cut_of(scene))
    a = life.join("a")
    assert a.lease.lease >= 2 << 40 > old
    assert "is void" in one(a.offer(lease=replace(a.lease, lease=old)), RefusePush).message


def test_another_policys_cut_is_refused() -> None:
    scene, _a, _b = two_workers()
    cut = cut_of(scene)
    policy = make_policy("greedy", PolicyOptions(), rng=np.random.default_rng(1))
    with pytest.raises(UsageError, match="checkpoint is of policy fixed: expected greedy"):
        Machine(MachineSettings(tasks=4), policy, cut)
    fixed = make_policy("fixed", PolicyOptions(means_s={"a": 1.0}), rng=np.random.default_rng(1))
    with pytest.raises(UsageError, match="has 1 streams of tasks: expected 3"):
        Machine(MachineSettings(tasks=4, parts=3), fixed, cut)


@pytest.mark.parametrize(
    ("field", "wrong", "said"),
    [
        ("version", -1, "version is -1: expected a whole number of at least 0"),
        ("version", 1.5, "version is 1.5"),
        ("next_tasks", [], "next_tasks is"),
        ("returned", ["3"], "returned.0 is '3'"),
        ("attempts", {"x": [["a", "b", "c"]]}, "attempts.x is"),
        ("attempts", {"3": [["a", "b"]]}, "attempts.3.0 is"),
        ("workers", [["a", "cpu", 0, 0, 0.0, 0]], "workers.0.2 is 0"),
        ("workers", [["a", "cpu", 1, 0, "nan", 0]], "workers.0.4 is 'nan'"),
        ("held", [["a", 3, -1.0, "checksum"]], "held.0.2 is -1.0"),
        ("policy", None, "policy is None: expected a text"),
        ("policy_state", [], "policy_state is"),
    ],
)
def test_cut_that_is_none_is_refused_by_its_place(field: str, wrong: Any, said: str) -> None:
    scene, _a, _b = two_workers()
    document = cut_of(scene).to_json()
    assert isinstance(document, dict)
    with pytest.raises(UsageError, match="cut: ") as caught:
        Cut.from_json({**document, field: wrong})
    assert said in str(caught.value)
    with pytest.raises(UsageError, match=f"cut: {field} is missing"):
        Cut.from_json({key: value for key, value in document.items() if key != field})
