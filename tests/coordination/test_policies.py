"""The parts of the papers' policies that are functions of numbers, and what their plans say."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from paceline.coordination import Policy, View, WorkerView
from paceline.coordination.effects import AddContribution, ApplyUpdate, Goodbye, SendCollect, SendVerdict
from paceline.coordination.events import UpdateApplied
from paceline.coordination.ids import WorkerName
from paceline.coordination.plan import Exactly, Finished, Update
from paceline.coordination.policies import POLICY_NAMES, PolicyOptions, check_policy, make_policy
from paceline.coordination.policies.adaptive_k_sync import AdaptiveKSync
from paceline.coordination.policies.backup import Backup, expected_order_statistics_s
from paceline.coordination.policies.k_async import Asgd, KAsync
from paceline.coordination.policies.k_sync import KSync
from paceline.coordination.policies.malenia import Malenia
from paceline.coordination.policies.mindflayer import best_cutoff
from paceline.coordination.policies.stationarity import Distance, Pflug
from paceline.errors import UsageError
from tests.coordination.scene import Scene, of, one


def view(n: int, number: int = 1, tasks: int = 4) -> View:
    workers = tuple(
        WorkerView(name=WorkerName(f"w{i}"), tasks_done=0, busy_s=0.0, rounds=number, founder=True) for i in range(n)
    )
    return View(round=number, tasks=tasks, workers=workers, joined=n)


# ---- K-sync ----------------------------------------------------------------------------------------------------------


def test_more_workers_asked_for_than_there_are_is_clipped_and_said() -> None:
    plan = KSync(5).plan(view(3))
    assert plan.quota.missing({}, 0) == 3
    assert "the first 3 of 3 workers count (5 were asked for)" in plan.reason


def test_round_one_waits_for_as_many_workers_as_are_asked_for() -> None:
    scene = Scene(KSync(3), tasks=3)
    a, b = scene.join("a"), scene.join("b")
    assert a.leases == b.leases == []
    assert "waiting for workers: 2 of 3 are ready" in scene.machine.machine.snapshot(0.0).situation
    scene.join("c")
    assert (len(a.leases), len(b.leases)) == (1, 1)


def test_cancelled_worker_joins_the_next_round_when_it_has_stopped() -> None:
    scene = Scene(KSync(2), tasks=2, min_workers=3)
    a, b, c = (scene.join(name) for name in "abc")
    for worker, task in ((a, 0), (b, 1)):
        worker.report(task)
        worker.deliver([task])
    assert scene.rounds[-1].version == 1
    first = c.lease
    assert first.version == 0
    c.end(first)
    assert c.lease.version == 1
    # Once: it has had its task of this round.
    again = c.lease
    c.report(again.tasks[0])
    c.deliver(again.tasks)
    assert c.lease is again or c.lease.version > 1


def test_all_are_waited_for_though_one_is_still_stopping() -> None:
    """K grows to all workers, as in backup's whole rounds, while c is being cancelled."""
    policy = AdaptiveKSync(2, 1, 3, Distance(first=1, factor=2.0))
    scene = Scene(policy, tasks=3, updates=False)
    a, b, c = (scene.join(name) for name in "abc")
    for version in (1, 2):
        held = c.lease
        for worker in (a, b):
            worker.report(worker.lease.tasks[0])
        for worker in (a, b):
            worker.deliver(worker.lease.tasks)
        scene.do(UpdateApplied(version=version, loss=0.0, scalars=(("distance", 1.0),)))
        if version == 1:
            c.end(held)
    assert "the first 3 of 3" in scene.machine.machine.snapshot(0.0).reason
    before = len(a.leases)
    a.report(a.lease.tasks[0])
    a.deliver(a.lease.tasks)
    c.end(held)
    assert (c.lease.version, len(a.leases)) == (2, before)


# ---- stationarity ----------------------------------------------------------------------------------------------------


def test_pflug_fires_when_signs_turn_and_not_before_the_burn_in() -> None:
    test = Pflug(threshold=3, burn_in=10)
    assert not any(test.stationary(1.0) for _ in range(50))
    assert [test.stationary(-1.0) for _ in range(5)] == [False, False, False, True, True]
    test.restart()
    assert [test.stationary(-1.0) for _ in range(12)] == [False] * 10 + [True] * 2


def test_raw_counter_runs_away_and_the_clamped_one_comes_back() -> None:
    """Specs of the CMAB paper, 3.1: the raw counter falls to about -j in the transient and never comes back."""
    raw, clamped = Pflug(10, 0, clamped=False), Pflug(10, 0)
    for test in (raw, clamped):
        for _ in range(1000):
            test.stationary(1.0)
    assert [any(test.stationary(-1.0) for _ in range(100)) for test in (raw, clamped)] == [False, True]


def test_distance_test_tells_standing_still_from_moving_on() -> None:
    moving, still = Distance(first=20), Distance(first=20)
    assert not any(moving.stationary(float(t) ** 2) for t in range(1, 500))
    found = [still.stationary(5.0 + 0.01 * np.sin(t)) for t in range(1, 500)]
    # At the second look: 20 and ceil(1.5 * 20).
    assert found.index(True) == 29


def test_adaptive_k_grows_by_its_step_up_to_the_most_and_marks_where_a_phase_begins() -> None:
    policy = AdaptiveKSync(1, 2, 4, Distance(first=2))
    seen = []
    for number in range(1, 40):
        plan = policy.plan(view(5, number))
        seen.append((plan.quota.missing({}, 0), plan.mark))
        policy.updated(Update(version=number, loss=1.0, scalars={"distance": 1.0}))
    counts = [count for count, _ in seen]
    assert sorted(set(counts)) == [1, 3, 4]
    assert counts == sorted(counts)
    begins = [number for number, (_, mark) in enumerate(seen) if mark]
    assert begins == [0, *(i for i in range(1, len(counts)) if counts[i] != counts[i - 1])]


# ---- asynchronous ----------------------------------------------------------------------------------------------------


def test_result_that_comes_during_an_update_waits_for_the_next_round() -> None:
    scene = Scene(Asgd(), tasks=1, min_workers=2, updates=False)
    a, b = scene.join("a"), scene.join("b")
    a.report(0)
    assert of(b.report(1), SendVerdict) == []
    # Told again, it is still undecided.
    assert of(b.report(1), SendVerdict) == []
    a.deliver([0])
    order = one(scene.log, ApplyUpdate)
    effects = scene.do(UpdateApplied(version=order.version, loss=order.loss))
    assert one(effects, SendVerdict).keep
    assert one(of(effects, SendCollect), SendCollect).kept == (1,)


def test_undecided_result_of_a_lost_worker_goes_back_to_the_queue() -> None:
    scene = Scene(Asgd(), tasks=1, min_workers=2, updates=False, lost_after_s=1.0, silent_after_s=1e6)
    a, b = scene.join("a"), scene.join("b")
    a.report(0)
    b.report(1)
    b.cut()
    scene.wait(2.0)
    a.deliver([0])
    scene.do(UpdateApplied(version=1, loss=0.0))
    assert a.lease.tasks == (1,)


def test_k_async_never_asks_a_worker_twice_in_a_round() -> None:
    scene = Scene(KAsync(2), tasks=2, min_workers=3)
    a, b, c = (scene.join(name) for name in "abc")
    a.report(0)
    a.deliver([0])
    assert len(a.leases) == 1
    b.report(1)
    b.deliver([1])
    assert scene.rounds[-1].version == 1
    assert [len(worker.leases) for worker in (a, b, c)] == [2, 2, 1]


@pytest.mark.parametrize("policy", [KAsync(1), Asgd()])
def test_undecided_result_fills_a_place_that_is_lost_after_the_close(policy: Policy) -> None:
    scene = Scene(policy, tasks=1, min_workers=2, updates=False, lost_after_s=1.0, silent_after_s=1e6)
    a, b = scene.join("a"), scene.join("b")
    a.report(0)
    b.report(1)
    assert one(scene.log, SendCollect).kept == (0,)
    a.cut()
    scene.wait(2.0)
    assert [order.kept for order in of(scene.log, SendCollect)] == [(0,), (1,)]
    b.deliver([1])
    assert one(scene.log, ApplyUpdate).version == 1


# ---- Malenia ---------------------------------------------------------------------------------------------------------


def test_part_goes_to_a_spare_worker_and_then_to_a_newcomer() -> None:
    scene = Scene(Malenia(2), tasks=2, parts=2, lost_after_s=1.0, silent_after_s=1e6)
    a, b, c = (scene.join(name) for name in "abc")
    assert (a.lease.tasks, b.lease.tasks, c.leases) == ((0,), (1,), [])
    b.cut()
    scene.wait(2.0)
    assert c.lease.tasks == (1,)
    c.cut()
    scene.wait(2.0)
    a.report(0)
    assert "part 1 of the data has none" in scene.machine.machine.snapshot(scene.now).situation
    leases = len(a.leases)
    d = scene.join("d")
    assert d.lease.tasks == (1,)
    d.report(1)
    assert len(a.leases) == leases
    a.deliver([0])
    d.deliver([1])
    assert scene.applied() == [[0, 1]]
    # Task 1 was planned once and then planned again, twice; those who lost it had begun it in vain.
    accounts = {worker.name: worker for worker in scene.rounds[0].workers}
    assert {name: (w.planned, w.replanned, w.wasted) for name, w in accounts.items()} == {
        # It went on until the stop.
        "a": (2, 0, 0),
        "b": (1, 0, 1),
        "c": (0, 1, 1),
        "d": (0, 1, 0),
    }


def test_worker_lost_after_the_stop_is_replaced_to_the_same_weight() -> None:
    scene = Scene(Malenia(2), tasks=2, parts=2, lost_after_s=1.0, silent_after_s=1e6)
    a, b, c = (scene.join(name) for name in "abc")
    a.report(0)
    a.report(2)
    b.report(1)
    # Part 0 has two, part 1 one: 1 / (1/2 + 1) * 2 = 4/3 >= 1.
    assert sorted(order.kept for order in of(scene.log, SendCollect)) == [(0, 2), (1,)]
    a.deliver([0, 2])
    b.cut()
    scene.wait(2.0)
    c.report(1)
    c.deliver([1])
    assert [add.weight for add in of(scene.log, AddContribution)] == [0.5, 1.0]
    assert one(scene.log, ApplyUpdate).divisor == 0.5 * 4 + 1.0 * 2


def test_round_one_counts_spare_workers_as_there() -> None:
    scene = Scene(Malenia(2), tasks=2, parts=2, min_workers=3)
    a, b, c = (scene.join(name) for name in "abc")
    assert (a.lease.tasks, b.lease.tasks, c.leases) == ((0,), (1,), [])


def test_worker_that_leaves_hands_its_part_on_and_its_work_is_done_again() -> None:
    scene = Scene(Malenia(2), tasks=4, parts=2, silent_after_s=1e6)
    a, b, c = (scene.join(name) for name in "abc")
    b.report(1)
    b.drain()
    b.report(3)
    b.end()
    assert one(scene.log, Goodbye).session == b.session
    assert c.lease.tasks == (1,)
    for worker, tasks in ((a, (0, 2)), (c, (1, 3))):
        for task in tasks:
            worker.report(task)
    a.deliver([0, 2])
    c.deliver([1, 3])
    assert scene.applied() == [[0, 1, 2, 3]]


def test_exactly_wants_what_was_settled() -> None:
    quota = Exactly({"part 0": 2, "part 1": 1})
    assert quota.missing({"part 0": 2}, 0) == 1
    assert quota.wants("part 1", {"part 0": 2})
    assert not quota.wants("part 0", {"part 0": 2})


# ---- MindFlayer, backup ----------------------------------------------------------------------------------------------


def test_best_cutoff_of_two_values_is_the_restart_optimum() -> None:
    """X = 1 with chance .9, else 100: cut at 1 costs 1 / .9 per success, no cut 10.9."""
    cutoff = best_cutoff(np.array([1.0] * 9 + [100.0]))
    assert (cutoff.limit_s, cutoff.success) == (1.0, 0.9)
    assert cutoff.trial_s == pytest.approx(1.0)


@pytest.mark.parametrize("seed", range(5))
def test_best_cutoff_is_the_best_of_all(seed: int) -> None:
    times_s = np.random.default_rng(seed).lognormal(0.0, 2.0, 40)
    cutoff = best_cutoff(times_s)
    costs = [np.minimum(times_s, t).mean() / (times_s <= t).mean() for t in times_s]
    assert cutoff.trial_s / cutoff.success == pytest.approx(min(costs), rel=0.06)


def test_constant_times_are_not_cut_off() -> None:
    assert best_cutoff(np.full(8, 2.0)).limit_s is None


@pytest.mark.parametrize("seed", range(3))
def test_expected_order_statistics_are_those_of_all_combinations(seed: int) -> None:
    rng = np.random.default_rng(seed)
    times_s = [rng.exponential(1.0 + i, 4).tolist() for i in range(4)]
    every = np.array([sorted(chosen) for chosen in itertools.product(*times_s)])
    assert expected_order_statistics_s(times_s) == pytest.approx(every.mean(axis=0))


def play_backup(variance: float, slow_s: float, rounds: int = 60) -> list[int]:
    """Play rounds with four workers of about 1 s and one of slow_s; give how many were waited for."""
    policy, rng, waited = Backup(), np.random.default_rng(0), []
    for number in range(1, rounds + 1):
        plan = policy.plan(view(5, number))
        k = plan.quota.missing({}, 0)
        waited.append(k)
        seconds = [float(rng.uniform(0.9, 1.1)) for _ in range(4)] + [slow_s]
        ended = tuple(Finished(WorkerName(f"w{i}"), s) for i, s in sorted(enumerate(seconds), key=lambda p: p[1])[:k])
        scalars = {"squared-norm": 1.0 + variance / k, "variance": variance}
        policy.updated(Update(version=number, loss=1.0, scalars=scalars, finished=ended))
    return waited


def test_backup_leaves_a_straggler_out_while_the_gradient_is_clear() -> None:
    waited = play_backup(variance=2.0, slow_s=10.0)
    assert waited[:5] == [5] * 5
    assert set(waited[5:]) == {4, 5}
    # Everybody's times are looked at now and then.
    assert [number for number, k in enumerate(waited[5:], start=6) if k == 5] == [20, 40, 60]


def test_backup_waits_for_all_when_noise_drowns_the_gradient() -> None:
    assert set(play_backup(variance=20.0, slow_s=10.0)) == {5}


def test_backup_sees_noise_that_comes_while_it_awaits_a_single_result() -> None:
    policy, waited = Backup(), []
    for number in range(1, 401):
        variance = 0.1 if number <= 40 else 20.0
        k = policy.plan(view(5, number)).quota.missing({}, 0)
        waited.append(k)
        ended = tuple(Finished(WorkerName(f"w{i}"), s) for i, s in list(enumerate([1.0, 30.0, 30.0, 30.0, 30.0]))[:k])
        scalars = {"squared-norm": 1.0 + variance / k, "variance": variance if k > 1 else 0.0}
        policy.updated(Update(version=number, loss=1.0, scalars=scalars, finished=ended))
    assert 1 in waited[:40]
    assert set(waited[300:]) == {5}


def test_backup_waits_for_all_when_nobody_is_slow() -> None:
    assert set(play_backup(variance=1.0, slow_s=1.0)) == {5}


# ---- names and options -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", POLICY_NAMES)
def test_every_name_makes_its_policy(name: str) -> None:
    options = PolicyOptions(tasks=2, means_s={"w1": 1.0}, parts=2)
    assert make_policy(name, options, rng=np.random.default_rng(0)).name == name


def test_unknown_policy_names_the_nearest() -> None:
    with pytest.raises(
        UsageError, match=r"policy is 'k-synch': expected one of ata-empirical, .* \(did you mean k-sync\?\)"
    ):
        check_policy("k-synch")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("adaptive-k-sync", PolicyOptions(tasks=3, k_start=4), "k-start is 4: expected 1 to the tasks per round, 3"),
        ("adaptive-k-sync", PolicyOptions(tasks=3, k_step=0), "k-step is 0: expected at least 1"),
        ("adaptive-k-sync", PolicyOptions(tasks=3, k_test="luck"), "k-test is 'luck': expected one of pflug"),
        ("cmab-kl", PolicyOptions(tasks=3, switch_at="5,4"), "switch-at is '5,4'"),
        ("cmab-oracle", PolicyOptions(tasks=3), "cmab-oracle has no means"),
        ("ringmaster", PolicyOptions(staleness=0), "staleness is 0: expected at least 1"),
        ("malenia", PolicyOptions(), "expected --partition N"),
    ],
)
def test_bad_options_say_what_was_expected(name: str, options: PolicyOptions, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_policy(name, options, rng=np.random.default_rng(0))
