"""Rounds begin, wait, are joined late, wound up by drained workers, and end."""

from __future__ import annotations

import pytest

from paceline.coordination import Count, Machine, MachineError, MachineSettings, Plan, View
from paceline.coordination.cut import Cut
from paceline.coordination.effects import (
    AddContribution,
    ApplyUpdate,
    Finish,
    Goodbye,
    LeaseRecord,
    LeaseVerdict,
    Outcome,
    RefusalCode,
    Refuse,
    RoundPlanned,
    SendCancel,
    SendCollect,
    SendLease,
    SendVerdict,
)
from paceline.coordination.events import (
    ContributionOffered,
    ContributionVerified,
    Event,
    StopRequested,
    UpdateApplied,
    UpdateFailed,
    VersionGone,
)
from paceline.coordination.ids import Incarnation, LeaseId, PushId, TaskId
from paceline.coordination.policies.shared import Deaf
from tests.coordination.policies import OneEach
from tests.coordination.scene import Scene, Worker, of, one, result


def situation(scene: Scene) -> tuple[str, str]:
    snapshot = scene.machine.machine.snapshot(scene.now)
    return snapshot.state, snapshot.situation


def two_workers(policy: str = "fixed", rounds: int | None = None) -> tuple[Scene, Worker, Worker]:
    scene = Scene(policy, tasks=4, min_workers=2, silent_after_s=1e6, progress_s=1e6, rounds=rounds)
    return scene, scene.join("a"), scene.join("b")


def test_round_one_waits_for_min_workers() -> None:
    scene = Scene("fixed", min_workers=2)
    scene.join("a")
    newcomer = scene.newcomer("b")
    assert not of(scene.log, RoundPlanned)
    assert situation(scene) == ("waiting", "waiting for workers: 1 of 2 are ready")
    newcomer.ready()
    assert of(scene.log, RoundPlanned)[0].allocation == (("a", 2), ("b", 2))


def test_waits_when_nobody_is_there() -> None:
    scene, a, b = two_workers()
    a.cut()
    b.cut()
    scene.wait(2.0)
    assert situation(scene) == ("waiting", "waiting for a worker: round 1 has tasks and nobody to do them")


def test_late_joiner_gets_pending_tasks() -> None:
    scene, a, b = two_workers()
    a.work()
    a.cut()
    b.cut()
    scene.wait(2.0)
    c = scene.join("c")
    assert (c.lease.tasks, c.lease.version) == ((2, 3), 0)
    c.work()
    assert scene.applied() == [[0, 1, 2, 3]]


def test_run_waits_between_rounds_when_nobody_is_there() -> None:
    scene, a, b = two_workers()
    a.work()
    b.cut()
    scene.wait(2.0)
    a.work()
    a.drain()
    a.end(a.lease)
    assert situation(scene)[0] == "waiting"
    assert scene.join("c").lease.version == 1


class Recorder(Deaf):
    """Plans one task for each worker and keeps the views that it was shown."""

    name = "recorder"

    def __init__(self) -> None:
        self.views: list[View] = []

    def plan(self, view: View) -> Plan:
        self.views.append(view)
        allocation = {worker.name: 1 for worker in view.workers}
        return Plan(allocation=allocation, quota=Count(len(allocation)), reason="one each")


def test_late_joiner_counts_its_own_rounds_and_is_no_founder() -> None:
    recorder = Recorder()
    scene = Scene(recorder, tasks=1)
    a = scene.join("a")
    a.work()
    b = scene.join("b")
    a.work()
    a.work()
    b.work()
    seen = [[(w.name, w.rounds, w.founder, w.tasks_done) for w in view.workers] for view in recorder.views]
    assert seen == [
        [("a", 1, True, 0)],
        [("a", 2, True, 1)],
        [("a", 3, True, 2), ("b", 1, False, 0)],
        [("a", 4, True, 3), ("b", 2, False, 1)],
    ]


def test_statistics_count_at_the_close_of_the_round() -> None:
    recorder = Recorder()
    scene = Scene(recorder, tasks=1, min_workers=2)
    a, b = scene.join("a"), scene.join("b")
    a.report(0, seconds=3.0)
    a.deliver()
    known = {w.name: w.tasks_done for w in scene.machine.machine.snapshot(0.0).workers}
    assert known == {"a": 0, "b": 0}
    b.work()
    assert [(w.tasks_done, w.busy_s) for w in recorder.views[-1].workers] == [(1, 3.0), (1, 1.0)]


def test_drained_worker_pushes_part_and_rest_is_replanned() -> None:
    scene, a, b = two_workers()
    first = b.lease
    a.report(0)
    a.drain()
    effects = a.deliver([0])
    assert one(effects, Goodbye).session == a.session
    assert one(effects, SendLease).tasks == (1,)
    b.work(first)
    b.work()
    assert scene.applied() == [[0, 1, 2, 3]]
    assert of(scene.log, LeaseRecord)[0].verdict is LeaseVerdict.PARTLY_APPLIED
    assert of(scene.log, RoundPlanned)[-1].allocation == (("b", 4),)


def test_drained_worker_with_nothing_to_push_leaves_at_once() -> None:
    _scene, a, b = two_workers()
    a.drain()
    effects = a.end()
    assert one(effects, Goodbye).session == a.session
    assert one(effects, SendLease).session == b.session
    _scene, a, _b = two_workers()
    a.work()
    assert one(a.drain(), Goodbye).session == a.session


def test_drained_greedy_worker_is_collected_after_its_present_task() -> None:
    _scene, a, b = two_workers("greedy")
    a.report(0)
    assert not of(a.drain(), SendCollect)
    effects = a.report(2)
    assert one(effects, SendVerdict).keep
    assert one(effects, SendCollect).kept == (0, 2)
    assert one(a.deliver([0, 2]), Goodbye).session == a.session
    assert b.lease.tasks == (1,)


def test_drain_before_ready_says_goodbye() -> None:
    scene = Scene()
    one(scene.newcomer("a").drain(), Goodbye)


def test_version_that_is_gone_gives_the_lease_back() -> None:
    scene, a, b = two_workers()
    effects = scene.do(VersionGone(a.session, a.lease.lease))
    assert sorted(task for order in of(effects, SendLease) for task in order.tasks) == [0, 1]
    del b


def test_round_takes_the_next_ids_whoever_computes() -> None:
    scene, a, b = two_workers(rounds=3)
    for _ in range(3):
        a.work()
        b.work()
    assert scene.applied() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert one(scene.log, Finish).outcome is Outcome.DONE
    assert [record.next_tasks for record in scene.rounds] == [(4,), (8,), (12,)]
    assert [record.returned for record in scene.rounds] == [(), (), ()]


def test_loss_of_a_round_is_that_of_its_samples() -> None:
    scene, a, b = two_workers(rounds=1)
    a.work()
    b.work()
    order = one(scene.log, ApplyUpdate)
    assert (order.samples, order.tasks, order.divisor, order.loss) == (8, 4, 8, (0 + 1 + 2 + 3) / 8)


def test_goal_ends_the_run_after_the_present_round() -> None:
    scene, a, b = two_workers()
    a.work()
    assert not of(scene.do(StopRequested("accuracy >= 0.97", reached=True)), Finish)
    finish = one(b.work(), Finish)
    assert (finish.outcome, finish.reason) == (Outcome.DONE, "accuracy >= 0.97")
    assert len(scene.rounds) == 1


def test_stop_without_grace_ends_the_run_now() -> None:
    scene, _a, _b = two_workers()
    finish = one(scene.do(StopRequested("Ctrl-C", grace_s=0.0)), Finish)
    assert (finish.outcome, finish.reason) == (Outcome.STOPPED, "Ctrl-C")
    assert one(scene.newcomer("c").told, Refuse).code is RefusalCode.RUN_OVER


def test_stop_lets_the_present_round_close_within_its_grace() -> None:
    scene, a, b = two_workers()
    a.work()
    assert not of(scene.do(StopRequested("SIGTERM", grace_s=5.0)), Finish)
    assert scene.machine.deadline == 5.0
    finish = one(b.work(), Finish)
    assert (finish.outcome, finish.reason, len(scene.rounds)) == (Outcome.STOPPED, "SIGTERM", 1)


def test_stop_abandons_the_round_when_its_grace_is_over() -> None:
    scene, a, _b = two_workers()
    a.work()
    scene.do(StopRequested("SIGTERM", grace_s=5.0))
    assert not of(scene.wait(4.9), Finish)
    assert one(scene.wait(0.2), Finish).outcome is Outcome.STOPPED
    assert scene.rounds == []


def test_stop_waits_for_the_update_that_is_being_made() -> None:
    scene = Scene("fixed", tasks=1, updates=False)
    scene.join("a").work()
    assert not of(scene.do(StopRequested("Ctrl-C", grace_s=0.0)), Finish)
    assert scene.machine.deadline is None or scene.machine.deadline > scene.now
    assert one(scene.do(UpdateApplied(version=1, loss=0.0)), Finish).outcome is Outcome.STOPPED
    assert len(scene.rounds) == 1


def test_shorter_grace_goes_before_a_longer_one() -> None:
    scene, _a, _b = two_workers()
    scene.do(StopRequested("accuracy >= 0.97", reached=True))
    scene.do(StopRequested("SIGTERM", grace_s=5.0))
    scene.do(StopRequested("later", grace_s=9.0))
    finish = one(scene.wait(5.0), Finish)
    assert (finish.outcome, finish.reason) == (Outcome.STOPPED, "SIGTERM")


def test_run_without_workers_is_stopped_after_idle_exit() -> None:
    scene = Scene("fixed", idle_exit_s=60.0, lost_after_s=0.0)
    assert not of(scene.wait(59.0), Finish)
    a = scene.join("a")
    assert not of(scene.wait(5.0), Finish)
    a.cut()
    assert not of(scene.wait(59.0), Finish)
    finish = one(scene.wait(1.0), Finish)
    assert (finish.outcome, finish.reason) == (Outcome.STOPPED, "no worker was there for 60 s")
    assert finish.try_again


def test_update_that_raises_fails_the_run() -> None:
    scene = Scene("fixed", tasks=1, updates=False)
    a = scene.join("a")
    a.work()
    finish = one(scene.do(UpdateFailed("the optimizer raised ValueError")), Finish)
    assert (finish.outcome, finish.reason) == (Outcome.FAILED, "the optimizer raised ValueError")


def test_nothing_is_planned_while_the_model_is_being_updated() -> None:
    scene = Scene("fixed", tasks=1, updates=False)
    a = scene.join("a")
    a.work()
    b = scene.join("b")
    assert len(of(scene.log, SendLease)) == 1
    scene.do(UpdateApplied(version=1, loss=0.0))
    assert (a.lease.version, b.leases) == (1, [])


def test_policy_hears_of_every_update_with_its_scalars() -> None:
    policy = OneEach(1)
    scene = Scene(policy, tasks=1, updates=False)
    a = scene.join("a")
    a.report(0)
    a.deliver([0])
    scene.do(UpdateApplied(version=1, loss=0.5, scalars=(("inner-product", 2.0),)))
    assert policy.updates == [(1, 0.5, {"inner-product": 2.0})]


@pytest.mark.parametrize(
    "event",
    [
        ContributionVerified(PushId(99)),
        UpdateApplied(version=1, loss=0.0),
        UpdateFailed("boom"),
    ],
)
def test_shell_that_breaks_a_rule_is_told_and_nothing_changes(event: Event) -> None:
    scene, a, b = two_workers()
    with pytest.raises(MachineError, match="recently"):
        scene.do(event)
    a.work()
    b.work()
    assert scene.applied() == [[0, 1, 2, 3]]


def test_push_id_offered_twice_is_a_fault_of_the_shell() -> None:
    scene, a, _b = two_workers()
    offer = ContributionOffered(
        push=PushId(7),
        lease=a.lease.lease,
        incarnation=a.incarnation,
        version=0,
        results=tuple(result(task) for task in a.lease.tasks),
    )
    scene.do(offer)
    with pytest.raises(MachineError, match="push 7 was offered twice"):
        scene.do(offer)
    one(scene.verify(PushId(7)), AddContribution)


def test_messages_about_unknown_leases_and_sessions_are_passed_over() -> None:
    scene, a, _b = two_workers()
    stranger = Worker(scene, "x", "x1")
    order = a.lease
    assert stranger.report(0, order) == []
    assert stranger.end(order) == []
    assert stranger.drain() == []
    assert stranger.cut() == []
    assert stranger.beat() == []
    assert a.scene.do(VersionGone(a.session, LeaseId(5))) == []
    assert stranger.incarnation == Incarnation("x1")


def test_run_resumed_in_a_new_life_goes_on_where_it_stood() -> None:
    policy = Recorder()
    settings = MachineSettings(tasks=1, life=2)
    scene = Scene(policy, tasks=1, life=2)
    earlier = Cut(
        version=4,
        next_tasks=(10,),
        returned=(TaskId(3), TaskId(7)),
        attempts={},
        workers=(),
        held=(),
        measured=0,
        policy=policy.name,
        policy_state={},
    )
    scene.machine.machine = Machine(settings, policy, earlier)
    a = scene.join("a")
    assert (a.lease.tasks, a.lease.version) == ((3,), 4)
    a.work()
    a.work()
    assert a.lease.tasks == (10,)
    assert [record.round for record in scene.rounds] == [5, 6]


def test_cancel_of_an_asynchronous_round_is_not_sent() -> None:
    scene = Scene(OneEach(1, cancel=False, max_staleness=None), tasks=1, min_workers=2)
    a, _b = scene.join("a"), scene.join("b")
    a.report(0)
    a.deliver([0])
    assert not of(scene.log, SendCancel)
