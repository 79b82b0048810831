"""Workers are lost, come back, claim names; each costs at most its own leases."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from paceline.coordination.effects import (
    AcknowledgePush,
    AddContribution,
    CloseSession,
    LeaseRecord,
    LeaseVerdict,
    Probe,
    RefusalCode,
    Refuse,
    RefusePush,
    RoundPlanned,
    SendCancel,
    SendLease,
    StagePush,
    Warn,
    Welcome,
    WorkerChanged,
)
from paceline.coordination.events import ContributionInterrupted, ProbeAnswered, Rejection
from paceline.coordination.ids import LeaseId
from tests.coordination.scene import Scene, Worker, of, one


def two_workers(**settings: Any) -> tuple[Scene, Worker, Worker]:
    """Two equal workers in round 1: a holds tasks 0 and 1, b holds 2 and 3."""
    scene = Scene("fixed", tasks=4, min_workers=2, lost_after_s=1.0, **settings)
    a, b = scene.join("a"), scene.join("b")
    assert (a.lease.tasks, b.lease.tasks) == ((0, 1), (2, 3))
    return scene, a, b


def test_lost_worker_loses_only_its_leases() -> None:
    scene, a, b = two_workers()
    a.work()
    b.report(2)
    b.cut()
    effects = scene.wait(1.5)
    assert [change.state for change in of(effects, WorkerChanged)] == ["lost"]
    again = one(effects, SendLease)
    assert (again.session, again.tasks, again.version) == (a.session, (2, 3), 0)
    a.work()
    assert scene.applied() == [[0, 1, 2, 3]]
    verdicts = [(record.worker, record.verdict) for record in of(scene.log, LeaseRecord)]
    assert verdicts == [("a", LeaseVerdict.APPLIED), ("b", LeaseVerdict.LOST), ("a", LeaseVerdict.APPLIED)]


def test_lost_tasks_are_planned_again_also_for_a_worker_that_still_computes() -> None:
    scene, a, b = two_workers()
    first = a.lease
    b.cut()
    effects = scene.wait(1.5)
    assert one(effects, RoundPlanned).again
    assert [order.tasks for order in a.leases] == [(0, 1), (2, 3)]
    a.work(first)
    a.work()
    assert scene.applied() == [[0, 1, 2, 3]]


def test_push_completed_after_loss_is_refused_as_stale() -> None:
    scene, _a, b = two_workers()
    for task in b.lease.tasks:
        b.report(task)
    push = one(b.offer(), StagePush).push
    b.cut()
    scene.wait(1.5)
    effects = scene.verify(push)
    assert one(effects, RefusePush).rejection is Rejection.STALE
    assert not of(effects, AddContribution)


def test_push_completed_before_loss_counts() -> None:
    scene, a, b = two_workers()
    b.cut()
    one(b.deliver(), AddContribution)
    effects = scene.wait(1.5)
    assert not of(effects, SendLease)
    a.work()
    assert scene.applied() == [[0, 1, 2, 3]]


def test_push_offered_after_loss_is_refused_as_stale() -> None:
    scene, _a, b = two_workers()
    b.cut()
    scene.wait(1.5)
    assert one(b.offer(), RefusePush).rejection is Rejection.STALE


def test_unknown_lease_is_refused_by_that_word() -> None:
    _scene, a, _b = two_workers()
    effects = a.offer(lease=replace(a.lease, lease=LeaseId(a.lease.lease + 1000)))
    assert one(effects, RefusePush).rejection is Rejection.UNKNOWN_LEASE


def test_lease_of_another_incarnation_cannot_be_pushed() -> None:
    scene, a, b = two_workers()
    assert one(a.offer(lease=b.lease), RefusePush).rejection is Rejection.STALE
    one(b.deliver(), AddContribution)
    a.work(a.leases[0])
    assert scene.applied() == [[0, 1, 2, 3]]


def test_broken_push_that_is_not_repeated_costs_the_lease() -> None:
    scene, a, b = two_workers(silent_after_s=10.0, progress_s=30.0)
    for task in a.lease.tasks:
        a.report(task)
    push = one(a.offer(), StagePush).push
    scene.do(ContributionInterrupted(push))
    for _ in range(31):
        scene.wait(1.0)
        a.beat()
        b.beat(progress=True)
    lost = [change for change in of(scene.log, WorkerChanged) if change.state == "lost"]
    assert [(change.name, change.reason) for change in lost] == [("a", "no progress for 30 s")]


def test_broken_push_is_pushed_again_and_counts_once() -> None:
    scene, a, b = two_workers()
    push = one(a.offer(), StagePush).push
    scene.do(ContributionInterrupted(push))
    one(a.deliver(), AddContribution)
    one(a.offer(), AcknowledgePush)
    b.work()
    assert scene.applied() == [[0, 1, 2, 3]]


def test_two_pushes_of_one_lease_are_added_once() -> None:
    scene, a, _b = two_workers()
    first = one(a.offer(), StagePush).push
    second = one(a.offer(), StagePush).push
    one(scene.verify(second), AddContribution)
    assert [type(effect) for effect in scene.verify(first)] == [AcknowledgePush]


def test_resumed_session_keeps_its_leases() -> None:
    scene, a, b = two_workers()
    lease = b.lease
    b.report(2)
    b.cut()
    scene.wait(0.5)
    effects = b.hello([lease.lease])
    assert one(effects, Welcome).resumed
    assert one(effects, SendLease).tasks == (2, 3)
    assert not of(scene.wait(3.0), SendLease)
    b.report(2)
    b.report(3)
    b.deliver()
    a.work()
    assert scene.applied() == [[0, 1, 2, 3]]
    record = scene.rounds[0]
    assert {worker.name: (worker.used, worker.wasted) for worker in record.workers} == {"a": (2, 0), "b": (2, 0)}


def test_repeated_report_is_not_counted_twice() -> None:
    scene, a, b = two_workers()
    for worker in (a, b):
        for task in worker.lease.tasks:
            worker.report(task)
            assert worker.report(task) == []
        worker.deliver()
    known = {worker.name: (worker.tasks_done, worker.busy_s) for worker in scene.machine.machine.snapshot(1.0).workers}
    assert known == {"a": (2, 2.0), "b": (2, 2.0)}


def test_session_resumed_before_its_cut_is_noticed_takes_over() -> None:
    scene, _a, b = two_workers()
    old, lease = b.session, b.lease
    effects = b.hello([lease.lease])
    assert one(effects, Welcome).resumed
    assert one(effects, CloseSession).session == old
    b.session, new = old, b.session
    b.cut()
    b.session = new
    assert not of(scene.wait(3.0), WorkerChanged)


def test_resume_cancels_leases_that_the_server_does_not_know() -> None:
    _scene, _a, b = two_workers()
    lease = b.lease
    b.cut()
    effects = b.hello([lease.lease, LeaseId(lease.lease + 100)])
    assert one(effects, SendCancel).lease == lease.lease + 100


def test_lost_worker_that_comes_back_with_leases_is_told_so_and_may_begin_anew() -> None:
    scene, _a, b = two_workers()
    lease = b.lease
    b.cut()
    scene.wait(1.5)
    assert one(b.hello([lease.lease]), Refuse).code is RefusalCode.LOST
    assert not one(b.hello(), Welcome).resumed
    b.ready()
    snapshot = scene.machine.machine.snapshot(scene.now)
    assert {worker.name: worker.state for worker in snapshot.workers}[b.name] in ("free", "busy")


def test_lease_ids_are_never_reused_across_lives() -> None:
    seen: set[LeaseId] = set()
    for life in (1, 2, 3):
        scene = Scene("fixed", tasks=2, life=life)
        worker = scene.join("a")
        for _ in range(5):
            worker.work()
        orders = {order.lease for order in of(scene.log, SendLease)}
        assert len(orders) == 6
        assert not orders & seen
        seen |= orders


def test_a_push_of_an_earlier_life_is_stale() -> None:
    scene = Scene("fixed", tasks=2, life=1)
    old = scene.join("a").lease
    later = Scene("fixed", tasks=2, life=2)
    worker = later.join("a")
    assert one(worker.offer(lease=old), RefusePush).rejection is Rejection.STALE


def test_name_in_use_newcomer_refused_when_holder_answers() -> None:
    scene, _a, b = two_workers(probe_s=2.0)
    newcomer = scene.newcomer("b", "b2")
    assert one(newcomer.told, Probe).session == b.session
    assert not of(newcomer.told, Welcome)
    scene.wait(1.0)
    refused = one(scene.do(ProbeAnswered(b.session)), Refuse)
    assert (refused.session, refused.code) == (newcomer.session, RefusalCode.NAME_IN_USE)
    assert "host pid b1" in refused.reason
    assert not of(scene.wait(5.0), CloseSession)
    b.work()


def test_name_in_use_newcomer_supersedes_when_holder_is_silent() -> None:
    scene, a, b = two_workers(probe_s=2.0)
    newcomer = scene.newcomer("b", "b2")
    effects = scene.wait(2.1)
    assert one(effects, Refuse).code is RefusalCode.SUPERSEDED
    assert one(effects, CloseSession).session == b.session
    assert one(effects, Welcome).session == newcomer.session
    assert one(effects, SendLease).session == a.session
    assert one(b.offer(), RefusePush).rejection is Rejection.STALE


def test_holder_that_resumes_while_its_name_is_claimed_keeps_it() -> None:
    scene, _a, b = two_workers(probe_s=2.0)
    newcomer = scene.newcomer("b", "b2")
    effects = b.hello([b.lease.lease])
    refused = one(effects, Refuse)
    assert (refused.session, refused.code) == (newcomer.session, RefusalCode.NAME_IN_USE)
    assert one(effects, Welcome).resumed
    assert not of(scene.wait(3.0), WorkerChanged)


def test_name_whose_session_is_broken_is_superseded_at_once() -> None:
    scene, _a, b = two_workers()
    b.cut()
    newcomer = scene.newcomer("b", "b2")
    assert not one(newcomer.told, Welcome).resumed
    assert not of(newcomer.told, Probe)


def test_third_claimant_of_a_name_is_refused_while_the_second_waits() -> None:
    scene, _a, _b = two_workers()
    scene.newcomer("b", "b2")
    third = scene.newcomer("b", "b3")
    assert one(third.told, Refuse).code is RefusalCode.NAME_IN_USE


def test_claimant_that_goes_away_leaves_the_holder_alone() -> None:
    scene, _a, b = two_workers(probe_s=2.0)
    scene.newcomer("b", "b2").cut()
    assert not of(scene.wait(5.0), CloseSession)
    b.work()


def test_restart_keeps_the_statistics_of_its_name() -> None:
    scene, a, b = two_workers()
    a.work()
    b.work()
    b.cut()
    scene.newcomer("b", "b2").ready()
    known = {worker.name: worker.tasks_done for worker in scene.machine.machine.snapshot(1.0).workers}
    assert known == {"a": 2, "b": 2}


def test_silent_worker_is_lost() -> None:
    scene, a, b = two_workers(silent_after_s=10.0, progress_s=1000.0)
    for _ in range(9):
        scene.wait(1.0)
        a.beat()
    effects = scene.wait(1.5)
    lost = [change for change in of(effects, WorkerChanged) if change.state == "lost"]
    assert [(change.name, change.reason) for change in lost] == [("b", "silent for 10 s")]
    assert one(effects, CloseSession).session == b.session


def test_worker_without_progress_is_lost_though_its_heart_beats() -> None:
    scene, a, b = two_workers(silent_after_s=10.0, progress_s=30.0)
    for worker in (a, b):
        worker.work()
    for second in range(1, 31):
        scene.wait(1.0)
        a.beat(progress=True)
        b.beat()
        assert second == 30 or not [c for c in of(scene.log, WorkerChanged) if c.state == "lost"]
    lost = [change for change in of(scene.log, WorkerChanged) if change.state == "lost"]
    assert [(change.name, change.reason) for change in lost] == [("b", "no progress for 30 s")]


def test_slow_worker_has_eight_times_its_learned_task_time() -> None:
    scene, a, b = two_workers(silent_after_s=10.0, progress_s=30.0)
    a.work()
    order = b.lease
    for task in order.tasks:
        b.report(task, seconds=20.0)
    b.deliver()
    for _ in range(159):
        scene.wait(1.0)
        a.beat(progress=True)
        b.beat()
    assert not [change for change in of(scene.log, WorkerChanged) if change.state == "lost"]
    scene.wait(1.5)
    assert [change.name for change in of(scene.log, WorkerChanged) if change.state == "lost"] == ["b"]


def test_worker_whose_task_time_is_not_learned_is_only_warned_about() -> None:
    scene, a, b = two_workers(silent_after_s=10.0, progress_s=30.0)
    for _ in range(100):
        scene.wait(1.0)
        a.beat()
        b.beat()
    assert not [change for change in of(scene.log, WorkerChanged) if change.state == "lost"]
    assert len([warn for warn in of(scene.log, Warn) if warn.text.startswith("b has made no progress")]) == 1


def test_idle_worker_is_not_expected_to_make_progress() -> None:
    scene, a, b = two_workers(silent_after_s=1e9, progress_s=30.0)
    a.work()
    b.work()
    a.work()
    scene.wait(29.0)
    b.beat(progress=True)
    scene.wait(29.0)
    assert not [change for change in of(scene.log, WorkerChanged) if change.state == "lost"]
