"""Keep and drop, collect and cancel: rounds whose tasks wait for their verdict."""

from __future__ import annotations

from paceline.coordination import Policy
from paceline.coordination.effects import (
    AddContribution,
    ApplyUpdate,
    LeaseRecord,
    LeaseVerdict,
    RefusePush,
    SendCancel,
    SendCollect,
    SendGrant,
    SendLease,
    SendVerdict,
)
from paceline.coordination.events import Rejection, TaskFailure
from paceline.coordination.ids import LeaseId
from paceline.coordination.policies.malenia import Harmonic
from tests.coordination.policies import OneEach, Trials
from tests.coordination.scene import Scene, Worker, of, one


def three_workers(policy: Policy | str = "greedy", tasks: int = 3) -> tuple[Scene, Worker, Worker, Worker]:
    """Three workers in round 1: a holds task 0, b 1, c 2."""
    scene = Scene(policy, tasks=tasks, min_workers=3, silent_after_s=1e6, progress_s=1e6)
    a, b, c = scene.join("a"), scene.join("b"), scene.join("c")
    assert [worker.lease.tasks for worker in (a, b, c)] == [(0,), (1,), (2,)]
    return scene, a, b, c


def test_lease_with_verdicts_is_neither_kept_in_advance_nor_pushed_unasked() -> None:
    _scene, a, _b, _c = three_workers()
    assert (a.lease.keep_in_advance, a.lease.push_unasked) == (False, False)


def test_kept_task_is_followed_by_another_in_the_same_lease() -> None:
    _scene, a, _b, _c = three_workers()
    effects = a.report(0)
    assert one(effects, SendVerdict) == SendVerdict(a.session, a.lease.lease, a.lease.tasks[0], True)
    assert one(effects, SendGrant).tasks == (3,)


def test_full_quota_collects_what_is_kept_and_cancels_the_rest() -> None:
    scene, a, b, c = three_workers()
    a.report(0)
    a.report(3)
    effects = b.report(1)
    collects = {order.session: order.kept for order in of(effects, SendCollect)}
    assert collects == {a.session: (0, 3), b.session: (1,)}
    assert one(effects, SendCancel).session == c.session
    assert not of(effects, ApplyUpdate)
    a.deliver([0, 3])
    effects = b.deliver([1])
    assert one(effects, ApplyUpdate).tasks == 3
    assert scene.applied() == [[0, 1, 3]]


def test_cancelled_and_unfinished_tasks_stand_at_the_head_of_the_queue() -> None:
    _scene, a, b, c = three_workers()
    a.report(0)
    a.report(3)
    b.report(1)
    c.end(wasted_s=0.5)
    a.deliver([0, 3])
    effects = b.deliver([1])
    assert sorted(order.tasks for order in of(effects, SendLease)) == [(2,), (4,), (5,)]


def test_cancelled_worker_gets_its_next_lease_when_it_has_answered() -> None:
    _scene, a, b, c = three_workers()
    a.report(0)
    a.report(3)
    b.report(1)
    a.deliver([0, 3])
    effects = b.deliver([1])
    assert {order.session for order in of(effects, SendLease)} == {a.session, b.session}
    assert one(c.end(), SendLease).session == c.session


def test_cancelled_work_is_billed_as_wasted() -> None:
    scene, a, b, c = three_workers()
    for worker, task in ((a, 0), (a, 3), (b, 1)):
        worker.report(task)
    c.end(wasted_s=0.5)
    a.deliver([0, 3])
    b.deliver([1])
    account = {worker.name: worker for worker in scene.rounds[0].workers}
    assert (account[c.name].used_s, account[c.name].wasted_s) == (0.0, 0.5)
    records = {record.worker: record.verdict for record in of(scene.log, LeaseRecord)}
    assert records == {
        a.name: LeaseVerdict.PARTLY_APPLIED,
        b.name: LeaseVerdict.APPLIED,
        c.name: LeaseVerdict.CANCELLED,
    }


def test_report_that_crosses_the_cancel_is_billed_and_not_kept() -> None:
    scene, a, b, c = three_workers()
    for worker, task in ((a, 0), (a, 3), (b, 1)):
        worker.report(task)
    for _ in range(2):
        assert not of(c.report(2, seconds=0.25), SendVerdict)
        assert not of(a.report(4, seconds=0.5), SendVerdict)
    c.end()
    a.deliver([0, 3])
    b.deliver([1])
    assert scene.applied() == [[0, 1, 3]]
    account = {worker.name: (worker.wasted, worker.wasted_s) for worker in scene.rounds[0].workers}
    assert account == {"a": (1, 0.5), "b": (0, 0.0), "c": (1, 0.25)}
    assert {record.worker: record.wasted_s for record in of(scene.log, LeaseRecord)} == {"a": 0.5, "b": 0.0, "c": 0.25}
    known = {worker.name: worker.tasks_done for worker in scene.machine.machine.snapshot(0.0).workers}
    assert known == {"a": 3, "b": 1, "c": 1}


def test_push_before_the_collect_is_refused() -> None:
    _scene, a, _b, _c = three_workers()
    a.report(0)
    refused = one(a.offer([0]), RefusePush)
    assert refused.rejection is Rejection.WRONG_TASKS
    assert "was pushed before it was collected" in refused.message


def test_duplicates_get_the_same_verdict_uncounted() -> None:
    scene, a, b, c = three_workers()
    first = one(a.report(0), SendVerdict)
    assert a.report(0) == [first]
    assert a.report(0) == [first]
    b.report(1)
    assert not of(scene.log, SendCollect)
    c.report(2)
    assert {order.kept for order in of(scene.log, SendCollect)} == {(0,), (1,), (2,)}


def test_quota_is_never_overshot() -> None:
    scene, a, b, c = three_workers(tasks=5)
    running = {worker.session: worker.lease.tasks[0] for worker in (a, b, c)}
    for worker in (a, b, c, a, b, c):
        for grant in of(worker.report(running[worker.session]), SendGrant):
            running[grant.session] = grant.tasks[0]
    kept = [verdict.task for verdict in of(scene.log, SendVerdict) if verdict.keep]
    assert len(kept) == len(set(kept)) == 5
    collects = {order.session: order.kept for order in of(scene.log, SendCollect)}
    for worker in (a, b, c):
        worker.deliver(collects[worker.session])
    assert scene.applied() == [sorted(kept)]


def test_lost_holder_of_kept_tasks_opens_the_round_again() -> None:
    scene, a, b, c = three_workers()
    for worker, task in ((a, 0), (b, 1), (c, 2)):
        worker.report(task)
    a.deliver([0])
    b.deliver([1])
    c.cut()
    effects = scene.wait(2.0)
    orders = of(effects, SendLease)
    assert {order.session for order in orders} == {a.session, b.session}
    assert all(order.version == 0 for order in orders)
    a.report(a.lease.tasks[0])
    collected = one(
        [e for e in scene.log[-20:] if isinstance(e, SendCollect) and e.lease == a.lease.lease], SendCollect
    )
    a.deliver(collected.kept)
    assert len(scene.applied()[0]) == 3


def test_resumed_worker_is_told_its_verdicts_and_the_collect_again() -> None:
    _scene, a, b, c = three_workers()
    a.cut()
    a.hello([a_lease(a)])
    a.report(0)
    b.report(1)
    c.report(2)
    a.cut()
    effects = a.hello([a_lease(a)])
    verdicts = of(effects, SendVerdict)
    assert [(verdict.task, verdict.keep) for verdict in verdicts] == [(0, True)]
    assert one(effects, SendCollect).kept == (0,)


def a_lease(worker: Worker) -> LeaseId:
    return of(worker.scene.log, SendLease)[0].lease


def test_k_sync_takes_the_first_k_and_cancels_the_others() -> None:
    scene, a, b, c = three_workers(OneEach(2))
    assert one(b.report(1), SendCollect).kept == (1,)
    effects = c.report(2)
    assert one(effects, SendCollect).kept == (2,)
    assert one(effects, SendCancel).session == a.session
    b.deliver([1])
    assert one(c.deliver([2]), ApplyUpdate).tasks == 2
    assert scene.applied() == [[1, 2]]


def test_k_sync_with_fewer_workers_than_k_gives_second_tasks() -> None:
    scene = Scene(OneEach(3), tasks=3)
    a = scene.join("a")
    for task in (0, 1, 2):
        a.report(task)
        a.deliver([task])
    assert scene.applied() == [[0, 1, 2]]


def test_asynchronous_round_lets_slow_work_go_on_and_applies_it_later() -> None:
    scene, a, b, c = three_workers(OneEach(1, cancel=False, refill=True, max_staleness=2))
    a.report(0)
    a.deliver([0])
    assert not of(scene.log, SendCancel)
    assert a.lease.version == 1
    b.report(1)
    b.deliver([1])
    record = of(scene.log, LeaseRecord)[-1]
    assert (record.worker, record.version, record.round) == (b.name, 0, 2)
    assert c.lease.version == 0


def test_asynchronous_lease_is_collected_at_its_first_result() -> None:
    _scene, a, _b, _c = three_workers(OneEach(3, cancel=False, refill=True, max_staleness=None))
    assert one(a.report(0), SendCollect).kept == (0,)


def test_empty_lease_of_a_worker_put_aside_is_taken_back_at_the_close() -> None:
    policy = OneEach(3, cancel=False, refill=True, max_staleness=None)
    scene = Scene(policy, tasks=3, min_workers=2, silent_after_s=1e6, aside_s=1e3)
    a, b = scene.join("a"), scene.join("b")
    lease = b.lease
    b.fail(1)
    for task in (0, 1):
        a.report(task)
        a.deliver([task])
    b.fail(2)
    a.report(a.lease.tasks[0])
    assert one(scene.log, SendCancel).lease == lease.lease


def test_result_beyond_the_staleness_bound_is_dropped() -> None:
    scene, a, b, c = three_workers(OneEach(1, cancel=False, refill=True, max_staleness=1))
    for _ in range(2):
        a.report(a.lease.tasks[0])
        a.deliver(a.lease.tasks)
    assert not one(c.report(2), SendVerdict).keep
    assert scene.rounds[-1].version == 2
    b.end()


def test_weights_and_divisor_of_the_plan_reach_the_sum() -> None:
    scene, a, b, c = three_workers(OneEach(3, weights={"b": 0.25}, divisor_tasks=7.0))
    for worker, task in ((a, 0), (b, 1), (c, 2)):
        worker.report(task)
    for worker, task in ((a, 0), (b, 1), (c, 2)):
        worker.deliver([task])
    assert [effect.weight for effect in of(scene.log, AddContribution)] == [1.0, 0.25, 1.0]
    update = one(scene.log, ApplyUpdate)
    assert update.divisor == 7.0 * update.samples / 3
    assert one(scene.log, ApplyUpdate).scalars == ("inner-product",)


def test_trial_that_runs_into_its_limit_counts_and_gives_nothing() -> None:
    scene = Scene(Trials(2, 0.5), tasks=2)
    a = scene.join("a")
    assert (a.lease.task_limit_s, a.lease.tasks) == (0.5, (0, 1))
    a.fail(0, TaskFailure.TIME_LIMIT, seconds=0.5)
    assert one(a.report(1), SendCollect).kept == (1,)
    a.deliver([1])
    assert scene.applied() == [[1]]
    assert scene.rounds[0].returned == (0,)


def test_harmonic_quota_waits_for_every_worker() -> None:
    a, b, c = "a", "b", "c"
    quota = Harmonic((a, b, c), 1.5)
    assert quota.missing({a: 9, b: 9}, 0) > 0
    assert quota.missing({a: 1, b: 1, c: 1}, 0) > 0
    assert quota.missing({a: 2, b: 1, c: 2}, 0) == 0
