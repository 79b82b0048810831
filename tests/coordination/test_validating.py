"""Between two rounds workers measure a version, each as much as its speed allows, whoever is lost meanwhile."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from paceline.coordination import Machine, MachineError, MachineSettings
from paceline.coordination.cut import Cut
from paceline.coordination.effects import (
    Effect,
    Finish,
    Goodbye,
    JudgeVersion,
    Outcome,
    RoundRecord,
    SaveCheckpoint,
    SendCancel,
    SendGrant,
    SendLease,
    Warn,
)
from paceline.coordination.events import StopRequested, TaskReported, TaskResult, VersionJudged
from paceline.coordination.ids import LeaseId, SessionId, TaskId
from paceline.coordination.policies import PolicyOptions, make_policy
from paceline.tasks import VALIDATION, is_validation
from tests.coordination.scene import Scene, Worker, of, one

PIECES = 8


def scene_of(policy: str = "fixed", **settings: Any) -> Scene:
    return Scene(policy, **{"validation_tasks": PIECES, "validate_every": 1, **settings})


def granted(effects: Iterable[Effect], worker: Worker) -> list[TaskId]:
    """Give the validation tasks that effects grant to a worker."""
    found = [effect for effect in effects if isinstance(effect, SendLease | SendGrant)]
    return [task for effect in found if effect.session == worker.session for task in effect.tasks if task >= VALIDATION]


def lease_of(worker: Worker) -> LeaseId:
    """Give a worker's latest lease of validation tasks."""
    return [order.lease for order in worker.leases if is_validation(order.tasks[0])][-1]


def measured(task: int, seconds: float = 1.0, samples: int = 2) -> TaskResult:
    piece = task - VALIDATION
    return TaskResult(task=TaskId(task), seconds=seconds, loss_sum=0.0, samples=samples, sums=(("right_sum", piece),))


def report(worker: Worker, task: int, **how: Any) -> list[Effect]:
    return worker.scene.do(TaskReported(worker.session, lease_of(worker), measured(task, **how)))


def measure_all(scene: Scene, workers: list[Worker], effects: list[Effect]) -> tuple[JudgeVersion, dict[str, int]]:
    """Let workers do their validation tasks in turn; gives the order to judge, and how many each did."""
    todo = {worker.name: granted(effects, worker) for worker in workers}
    done = dict.fromkeys(todo, 0)
    for _ in range(1000):
        for worker in workers:
            if todo[worker.name]:
                said = report(worker, todo[worker.name].pop(0))
                done[worker.name] += 1
                for other in workers:
                    todo[other.name] += granted(said, other)
                if found := of(said, JudgeVersion):
                    return found[0], {str(name): count for name, count in done.items()}
    raise AssertionError("the measurement does not end")


def first_round(scene: Scene, *workers: Worker) -> list[Effect]:
    """Do round 1; gives what came with and after its commit."""
    scene.finish_round(*workers)
    place = next(number for number, effect in enumerate(scene.log) if isinstance(effect, RoundRecord))
    return scene.log[place:]


def test_a_version_is_measured_between_two_rounds_and_the_next_waits_for_its_judgement() -> None:
    scene = scene_of(min_workers=2)
    a, b = scene.join("a"), scene.join("b")
    effects = first_round(scene, a, b)
    assert all(is_validation(order.tasks[0]) for order in of(effects, SendLease))
    assert scene.machine.machine.snapshot(0.0).state == "training"
    order, done = measure_all(scene, [a, b], effects)
    assert (order.version, order.tasks, order.worker_s) == (1, PIECES, float(PIECES))
    assert order.means == (("right", sum(range(PIECES)) / (2 * PIECES)),)
    assert done == {"a": 4, "b": 4}
    # Both were told that there is no more, and nobody has been given anything of round 2.
    assert {cancel.session for cancel in of(scene.log, SendCancel)} == {a.session, b.session}
    assert not [lease for lease in of(scene.log, SendLease) if lease.version == 1 and not is_validation(lease.tasks[0])]
    said = scene.do(VersionJudged(1))
    assert {lease.version for lease in of(said, SendLease)} == {1}


def test_who_is_three_times_as_fast_measures_three_times_as_much() -> None:
    scene = scene_of(validation_tasks=64, min_workers=2)
    a, b = scene.join("a"), scene.join("b")
    for task in a.lease.tasks:
        a.report(task, a.lease, 1.0)
    a.deliver(lease=a.lease)
    for task in b.lease.tasks:
        b.report(task, b.lease, 3.0)
    effects = b.deliver(lease=b.lease)
    # The clock of this stage stands still: b reports one for three of a's.
    todo = {worker.name: granted(effects, worker) for worker in (a, b)}
    done = {"a": 0, "b": 0}
    for turn in range(400):
        worker = b if turn % 4 == 3 else a
        if todo[worker.name]:
            said = report(worker, todo[worker.name].pop(0))
            done[worker.name] += 1
            for other in (a, b):
                todo[other.name] += granted(said, other)
            if of(said, JudgeVersion):
                break
    assert sum(done.values()) == 64
    assert 46 <= done["a"] <= 50


def test_a_slow_worker_gets_no_task_that_a_busy_one_would_have_done_sooner() -> None:
    scene = scene_of(validation_tasks=2, min_workers=2)
    a, b = scene.join("a"), scene.join("b")
    for worker, seconds in ((a, 0.1), (b, 10.0)):
        for task in worker.lease.tasks:
            worker.report(task, worker.lease, seconds)
    a.deliver(lease=a.lease)
    effects = b.deliver(lease=b.lease)
    assert (len(granted(effects, a)), len(granted(effects, b))) == (1, 0)


@pytest.mark.parametrize("how", ["lost", "drained"])
def test_what_a_worker_that_goes_had_is_measured_by_others(how: str) -> None:
    scene = scene_of(min_workers=2, lost_after_s=1.0)
    a, b = scene.join("a"), scene.join("b")
    effects = first_round(scene, a, b)
    mine = granted(effects, b)
    if how == "lost":
        b.cut()
        scene.wait(1.1)
    else:
        b.drain()
        said = report(b, mine[0])
        assert of(said, Goodbye)
    log = effects if how == "lost" else [e for e in effects if e not in of(effects, Goodbye)]
    todo = granted(log, a)
    while True:
        said = report(a, todo.pop(0))
        todo += granted(said, a)
        if found := of(said, JudgeVersion):
            break
    assert (found[0].tasks, found[0].means) == (PIECES, (("right", 28 / 16),))


def test_a_session_that_is_back_is_told_its_validation_tasks_again() -> None:
    scene = scene_of(min_workers=1)
    a = scene.join("a")
    effects = first_round(scene, a)
    tasks = granted(effects, a)
    lease = lease_of(a)
    report(a, tasks[0])
    a.cut()
    said = a.hello([lease])
    again = one(said, SendLease)
    assert (again.lease, list(again.tasks)) == (lease, tasks)
    # What it says again changes nothing.
    assert report(a, tasks[0]) == []
    report(a, tasks[1])


def test_a_task_that_fails_on_two_workers_ends_the_run_and_on_one_is_done_by_another() -> None:
    scene = scene_of(min_workers=2)
    a, b = scene.join("a"), scene.join("b")
    effects = first_round(scene, a, b)
    task = granted(effects, a)[0]
    said = a.fail(task)
    assert one(said, Warn).text == "validation task 0 failed on a and is tried again: boom"
    assert task not in granted(said, a)
    for mine in granted(effects, a)[1:]:
        report(a, mine)
    todo = granted(effects, b)
    while task not in todo:
        todo += granted(report(b, todo.pop(0)), b)
    while todo[0] != task:
        todo += granted(report(b, todo.pop(0)), b)
    end = one(b.fail(task), Finish)
    assert (end.outcome, end.reason) == (Outcome.FAILED, "validation task 0 failed on a, b: boom")


def test_a_run_that_is_done_measures_its_last_version_first_and_one_that_is_stopped_does_not() -> None:
    scene = scene_of(rounds=1, validate_every=0)
    a = scene.join("a")
    effects = first_round(scene, a)
    assert not of(effects, Finish)
    measure_all(scene, [a], effects)
    assert one(scene.do(VersionJudged(1)), Finish).reason == "1 rounds are done"

    stopped = scene_of(rounds=1)
    b = stopped.join("b")
    first_round(stopped, b)
    assert one(stopped.do(StopRequested("asked", grace_s=0.0)), Finish).outcome is Outcome.STOPPED


def test_a_goal_that_the_measured_version_meets_ends_the_run_at_that_version() -> None:
    scene = scene_of()
    a = scene.join("a")
    effects = first_round(scene, a)
    measure_all(scene, [a], effects)
    assert not of(scene.do(StopRequested("accuracy is reached", reached=True)), Finish)
    end = one(scene.do(VersionJudged(1)), Finish)
    assert (end.outcome, end.reason) == (Outcome.DONE, "accuracy is reached")
    assert len(scene.rounds) == 1


def test_versions_are_measured_every_so_many_rounds() -> None:
    scene = scene_of(validate_every=3, rounds=7)
    a = scene.join("a")
    versions = []
    for _ in range(7):
        place = len(scene.log)
        scene.finish_round(a)
        effects = scene.log[place:]
        if granted(effects, a):
            order, _ = measure_all(scene, [a], effects)
            versions.append(order.version)
            scene.do(VersionJudged(order.version))
    assert versions == [3, 6, 7]


def test_nothing_can_be_judged_that_was_not_measured() -> None:
    scene = scene_of()
    a = scene.join("a")
    with pytest.raises(MachineError, match="version 1 was not to be judged"):
        scene.machine.machine.step(VersionJudged(1), 0.0)
    first_round(scene, a)
    with pytest.raises(MachineError, match="version 1 was not to be judged"):
        scene.machine.machine.step(VersionJudged(1), 0.0)


def resumed(scene: Scene, cut: Cut) -> Scene:
    fresh = scene_of(life=2)
    means_s = dict.fromkeys("abcdefgh", 1.0)
    policy = make_policy("fixed", PolicyOptions(means_s=means_s), rng=np.random.default_rng(0))
    settings = MachineSettings(tasks=4, clock_slack_s=1e6, validation_tasks=PIECES, validate_every=1, life=2)
    fresh.machine.machine = Machine(settings, policy, Cut.from_json(cut.to_json()))
    return fresh


def test_a_resumed_run_measures_what_was_not_judged_and_nothing_twice() -> None:
    scene = scene_of(checkpoint_rounds=1)
    a = scene.join("a")
    effects = first_round(scene, a)
    before = one(effects, SaveCheckpoint).cut
    again = resumed(scene, before)
    b = again.join("b")
    order, _ = measure_all(again, [b], again.log)
    assert order.version == 1

    measure_all(scene, [a], effects)
    scene.do(VersionJudged(1))
    after = scene.machine.machine.cut(0.0)
    assert after is not None
    on = resumed(scene, after)
    c = on.join("c")
    assert not is_validation(c.lease.tasks[0])


def test_whatever_happens_to_workers_every_task_is_measured_once() -> None:
    for seed in range(150):
        chance = random.Random(seed)
        scene = scene_of(validation_tasks=chance.randrange(1, 40), min_workers=1, lost_after_s=1.0)
        workers = {name: scene.join(name) for name in ("a", "b", "c")}
        scene.finish_round(*workers.values())
        for _ in range(2000):
            if of(scene.log, JudgeVersion):
                break
            name = chance.choice(sorted(workers))
            disturb(scene, workers, name, chance)
        order = one(scene.log, JudgeVersion)
        count = scene.machine.machine._state.settings.validation_tasks
        assert order.tasks == count, seed
        assert order.means == (("right", sum(range(count)) / (2 * count)),), seed
        scene.do(VersionJudged(order.version))
        assert scene.machine.machine.snapshot(scene.now).situation


def disturb(scene: Scene, workers: dict[str, Worker], name: str, chance: random.Random) -> None:
    """Let something happen to a worker: mostly it reports."""
    worker = workers[name]
    held = [order.lease for order in worker.leases if is_validation(order.tasks[0])]
    what = chance.random()
    if what < 0.85 and held:
        tasks = granted(scene.log, worker)
        if tasks:
            result = measured(chance.choice(tasks))
            scene.do(TaskReported(SessionId(worker.session), held[-1], result))
    elif what < 0.9:
        worker.cut()
        worker.hello(held[-1:])
    elif what < 0.95:
        worker.cut()
        scene.wait(1.1)
        workers[name] = scene.join(name, f"{name}{chance.random()}")
    else:
        worker.drain()
        if held:
            tasks = granted(scene.log, worker)
            for task in tasks:
                scene.do(TaskReported(worker.session, held[-1], measured(task)))
        workers[name] = scene.join(name, f"{name}{chance.random()}")


def test_a_task_that_the_only_worker_fails_twice_ends_the_run() -> None:
    scene = scene_of()
    a = scene.join("a")
    task = granted(first_round(scene, a), a)[0]
    assert one(a.fail(task), Warn).text.endswith("boom")
    for mine in range(VALIDATION + 1, VALIDATION + PIECES):
        report(a, mine)
    assert one(a.fail(task), Finish).reason == "validation task 0 failed on a: boom"
