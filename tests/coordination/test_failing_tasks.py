"""Tasks that fail, and workers that fail them."""

from __future__ import annotations

from paceline.coordination.effects import (
    AddContribution,
    Finish,
    LeaseRecord,
    LeaseVerdict,
    Outcome,
    RefusePush,
    RoundPlanned,
    SendLease,
    StagePush,
    Warn,
    WorkerChanged,
)
from paceline.coordination.events import ContributionRejected, Rejection, TaskFailure
from tests.coordination.scene import Scene, Worker, of, one


def two_workers(rounds: int | None = None, strikes: int = 3) -> tuple[Scene, Worker, Worker]:
    """Two equal workers in round 1: a holds tasks 0 and 1, b holds 2 and 3."""
    scene = Scene("fixed", tasks=4, min_workers=2, rounds=rounds, aside_s=5.0, silent_after_s=1e6, strikes=strikes)
    return scene, scene.join("a"), scene.join("b")


def states(scene: Scene, name: str) -> list[str]:
    return [change.state for change in of(scene.log, WorkerChanged) if change.name == name]


def test_failing_task_goes_to_another_worker() -> None:
    scene, a, b = two_workers()
    first = b.lease
    effects = a.fail(0)
    assert "task 0 failed on a" in one(effects, Warn).text
    again = one(effects, SendLease)
    assert (again.session, again.tasks) == (b.session, (0,))
    a.report(1)
    one(a.deliver([1]), AddContribution)
    b.work(first)
    b.work()
    assert scene.applied() == [[0, 1, 2, 3]]
    assert of(scene.log, LeaseRecord)[0].verdict is LeaseVerdict.PARTLY_APPLIED
    account = {worker.name: worker for worker in scene.rounds[0].workers}
    assert (account[a.name].used, account[a.name].wasted, account[a.name].wasted_s) == (1, 1, 1.0)
    assert (account[b.name].used, account[b.name].replanned) == (3, 1)


def test_two_workers_agree_the_run_fails() -> None:
    _scene, a, b = two_workers()
    a.fail(0)
    finish = one(b.fail(0), Finish)
    assert (finish.outcome, finish.task) == (Outcome.FAILED, 0)
    assert finish.reason == "task 0 failed on a, b: boom"
    assert finish.detail == "Traceback of b"


def test_lone_worker_tries_a_failing_task_once_more() -> None:
    scene = Scene("fixed", tasks=2)
    a = scene.join("a")
    lease = a.lease
    again = one(a.fail(0), SendLease)
    assert again.tasks == (0,)
    a.report(1, lease)
    a.deliver([1], lease)
    a.work()
    assert scene.applied() == [[0, 1]]


def test_lone_worker_that_fails_a_task_twice_ends_the_run() -> None:
    scene = Scene("fixed", tasks=1)
    a = scene.join("a")
    a.fail(0)
    finish = one(a.fail(0), Finish)
    assert (finish.outcome, finish.task, finish.reason) == (Outcome.FAILED, 0, "task 0 failed on a: boom")


def test_worker_failing_what_others_manage_is_put_aside() -> None:
    scene, a, b = two_workers()
    lease = b.lease
    a.fail(0)
    a.fail(1)
    a.end()
    b.work(lease)
    assert "aside" not in states(scene, "a")
    while len(scene.rounds) < 1:
        b.work(b.next_lease())
    assert states(scene, "a")[-1] == "aside"
    plan = of(scene.log, RoundPlanned)[-1]
    assert (plan.round, plan.allocation) == (2, (("b", 4),))


def test_worker_put_aside_comes_back_after_its_time() -> None:
    scene, a, b = two_workers()
    lease = b.lease
    a.fail(0)
    a.report(1)
    a.deliver([1])
    b.work(lease)
    b.work()
    assert states(scene, "a")[-1] == "aside"
    scene.wait(4.9)
    assert states(scene, "a")[-1] == "aside"
    scene.wait(10.0)
    assert states(scene, "a")[-1] == "ready"
    b.work()
    assert of(scene.log, RoundPlanned)[-1].allocation == (("a", 2), ("b", 2))


def test_time_aside_doubles_until_a_contribution_is_taken() -> None:
    scene, a, b = two_workers(strikes=100)
    pauses = []
    for _ in range(3):
        effects = a.offer([99])
        pauses += [change.reason for change in of(effects, WorkerChanged)]
        scene.wait(1000.0)
        while a.leases[-1].lease in scene.over:
            b.work(b.next_lease())
    assert [reason.split(":")[0] for reason in pauses] == [f"gets no tasks for {s} s" for s in (5, 10, 20)]
    a.work()
    while a.leases[-1].lease in scene.over:
        b.work(b.next_lease())
    assert "for 5 s" in one(a.offer([99]), WorkerChanged).reason


def test_non_finite_sum_is_tried_on_another_worker() -> None:
    scene, a, b = two_workers()
    lease = b.lease
    push = one(a.offer(), StagePush).push
    effects = scene.do(ContributionRejected(push, Rejection.NON_FINITE, "the sum is not finite"))
    assert one(effects, RefusePush).rejection is Rejection.NON_FINITE
    assert sorted(task for order in of(effects, SendLease) for task in order.tasks) == [0, 1]
    assert {order.session for order in of(effects, SendLease)} == {b.session}
    for order in [lease, *of(effects, SendLease)]:
        b.work(order)
    assert scene.applied() == [[0, 1, 2, 3]]


def test_sum_that_is_not_finite_on_two_workers_ends_the_run() -> None:
    scene, a, b = two_workers()
    push = one(a.offer(), StagePush).push
    scene.do(ContributionRejected(push, Rejection.NON_FINITE, "the sum is not finite"))
    push = one(b.offer(lease=b.leases[1]), StagePush).push
    finish = one(scene.do(ContributionRejected(push, Rejection.NON_FINITE, "the sum is not finite")), Finish)
    assert (finish.outcome, finish.task) == (Outcome.FAILED, b.leases[1].tasks[0])


def test_repeated_failure_of_one_attempt_counts_once() -> None:
    scene, a, _b = two_workers()
    a.fail(0)
    assert a.fail(0) == []
    assert a.fail(0, TaskFailure.NON_FINITE) == []
    assert not of(scene.log, Finish)


def test_failed_task_that_loses_its_next_holder_does_not_go_back_to_the_first() -> None:
    scene = Scene("fixed", tasks=3, min_workers=3, silent_after_s=1e6)
    workers = [scene.join(name) for name in "abc"]
    again = one(workers[0].fail(0), SendLease)
    second = next(worker for worker in workers if worker.session == again.session)
    third = next(worker for worker in workers[1:] if worker is not second)
    second.cut()
    orders = of(scene.wait(2.0), SendLease)
    assert [order.session for order in orders if 0 in order.tasks] == [third.session]
