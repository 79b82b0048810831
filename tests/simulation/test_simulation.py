"""The simulated world keeps its own rules, and notices a coordinator that orders what cannot be done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from paceline.coordination import Machine, MachineSettings
from paceline.coordination.effects import AddContribution, ApplyUpdate, Effect, Outcome, SendCollect
from paceline.coordination.events import ContributionVerified, Event, Rejection, TaskFailure
from paceline.coordination.ids import TaskId
from paceline.coordination.policies import PolicyOptions, make_policy
from paceline.laws import Law
from paceline.simulation import (
    CorruptPush,
    CutPush,
    CutSession,
    Drain,
    FailTask,
    FailUpdate,
    Fault,
    Freeze,
    HangTask,
    Kill,
    LoseAnswer,
    SecondProcess,
    SimulatedWorker,
    Simulation,
    SimulationError,
    SimulationResult,
    Stop,
    World,
)
from tests.coordination.checked import Checked

TWO = (SimulatedWorker(name="a", task_s=(1.0,)), SimulatedWorker(name="b", task_s=(1.0,)))
BEATING = World(heartbeat_s=0.5)


def simulate(
    workers: Sequence[SimulatedWorker] = TWO,
    faults: Sequence[Fault] = (),
    *,
    policy: str = "fixed",
    tasks: int = 4,
    rounds: int = 2,
    world: World = BEATING,
) -> SimulationResult:
    means_s = {worker.name: 1.0 for worker in workers}
    rule = make_policy(policy, PolicyOptions(means_s=means_s), rng=np.random.default_rng(0))
    settings = MachineSettings(tasks=tasks, rounds=rounds, min_workers=2, silent_after_s=5.0)
    machine = Checked(Machine(settings, rule))
    return Simulation(machine, workers, faults=faults, world=world).run(until_s=1000.0)


def applied(result: SimulationResult) -> list[list[TaskId]]:
    return [update.tasks() for update in result.model.updates]


def test_tasks_of_a_worker_follow_one_another() -> None:
    result = simulate([replace(TWO[0], task_s=(1.0, 2.0)), replace(TWO[1], task_s=(0.5,))])
    assert result.round_s == [3.0, 3.0]
    assert applied(result) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert result.busy_s == {"a": 6.0, "b": 2.0}


def test_push_pull_and_update_take_their_time_and_are_no_task_seconds() -> None:
    workers = [replace(worker, push_s=0.25, pull_s=0.5) for worker in TWO]
    result = simulate(workers, world=replace(BEATING, update_s=0.125))
    assert result.round_s == [2.875, 2.875]
    assert result.used_s == 8.0


@pytest.mark.parametrize(("micro_steps", "stopped_s"), [(0, 1.25), (1, 2.0), (2, 1.5), (4, 1.25), (8, 1.25)])
def test_stop_takes_effect_at_once_or_at_the_end_of_the_micro_step(micro_steps: int, stopped_s: float) -> None:
    # At 1.25 the quick one has done two tasks; the slow one is a quarter into its second and has one to push.
    quick, slow = replace(TWO[0], task_s=(0.625,)), replace(TWO[1], micro_steps=micro_steps)
    record = simulate([quick, slow], policy="greedy", tasks=3, rounds=1).rounds[0]
    assert record.seconds == stopped_s
    assert {worker.name: worker.wasted_s for worker in record.workers} == {"a": 0.0, "b": stopped_s - 1.0}


def test_freeze_lengthens_the_task_it_strikes() -> None:
    result = simulate(faults=[Freeze("b", 0.5, 2.0)])
    assert result.round_s[0] == 3.5
    assert result.faults == {"Freeze": 1}
    seconds = sorted(task.seconds for lease in result.leases if lease.round == 1 for task in lease.results)
    assert seconds == [1.0, 1.0, 1.0, 2.5]


def test_long_freeze_costs_the_worker_its_leases_and_it_comes_back() -> None:
    result = simulate(faults=[Freeze("b", 0.5, 10.0)], rounds=6)
    assert applied(result)[0] == [0, 1, 2, 3]
    states = [change.state for change in result.changes if change.name == "b"]
    assert states == ["joining", "ready", "lost", "joining", "ready"]
    assert [refused.code.value for refused in result.refused] == ["lost"]


def test_killed_worker_is_replaced_by_its_next_incarnation() -> None:
    result = simulate(faults=[Kill("b", 0.5, restart_after_s=0.25)], rounds=3)
    assert [change.state for change in result.changes if change.incarnation == "b#2"] == ["joining", "ready"]
    assert applied(result) == [list(range(k * 4, k * 4 + 4)) for k in range(3)]


def test_cut_session_is_resumed_and_costs_nothing() -> None:
    result = simulate(faults=[CutSession("b", 0.5, 0.75)])
    assert result.round_s == [2.0, 2.0]
    assert result.lost_messages == 0
    assert "resumed" in [change.state for change in result.changes]


def test_report_said_into_a_cut_session_is_repeated_at_the_resume() -> None:
    result = simulate(faults=[CutSession("b", 0.5, 0.75, noticed_after_s=2.0)])
    assert applied(result) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert result.wasted_s == 0.0


@pytest.mark.parametrize("push_s", [0.0, 0.5])
@pytest.mark.parametrize("fault", [CutPush("b", 1), LoseAnswer("b", 1)])
def test_push_without_answer_is_repeated_and_counts_once(fault: Fault, push_s: float) -> None:
    result = simulate([replace(worker, push_s=push_s) for worker in TWO], [fault])
    assert applied(result) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert result.pushes == 5
    assert result.faults == {type(fault).__name__: 1}


@pytest.mark.parametrize("rejection", [Rejection.CHECKSUM, Rejection.WRONG_VERSION, Rejection.WRONG_TASKS])
def test_corrupt_push_is_refused_and_its_tasks_done_again(rejection: Rejection) -> None:
    result = simulate(faults=[CorruptPush("b", 1, rejection)])
    assert result.rejections == {rejection: 1}
    assert applied(result)[0] == [0, 1, 2, 3]
    assert result.wasted_s == 2.0


def test_push_for_a_lease_that_was_never_given_is_refused_and_the_worker_is_waited_for_no_longer() -> None:
    fault = CorruptPush("b", 2, Rejection.UNKNOWN_LEASE)
    result = simulate(faults=[fault], rounds=3)
    assert result.rejections == {Rejection.UNKNOWN_LEASE: 1}
    assert applied(result) == [list(range(k * 4, k * 4 + 4)) for k in range(3)]
    assert [change.state for change in result.changes if change.name == "b"].count("lost") == 1


def test_failed_task_is_done_by_another() -> None:
    result = simulate(faults=[FailTask("a", 0, 1, TaskFailure.OUT_OF_MEMORY)])
    assert applied(result)[0] == [0, 1, 2, 3]
    assert {lease.worker for lease in result.leases if 0 in lease.kept} == {"b"}


def test_task_that_fails_everywhere_ends_the_run() -> None:
    result = simulate(faults=[FailTask(None, 2, 9)])
    assert result.finish is not None
    assert (result.finish.outcome, result.finish.task) == (Outcome.FAILED, 2)


def test_hanging_task_costs_its_worker_the_lease() -> None:
    result = simulate(faults=[HangTask("b", 3)], rounds=2)
    assert applied(result)[1] == [4, 5, 6, 7]
    assert result.rounds[1].seconds > 30.0
    assert "no progress for 30 s" in [change.reason for change in result.changes]


def test_drained_worker_leaves_with_part_of_its_lease() -> None:
    result = simulate(faults=[Drain("b", 0.5)])
    assert [change.state for change in result.changes if change.name == "b"][-1] == "left"
    assert sorted(len(lease.kept) for lease in result.leases if lease.round == 1) == [1, 1, 2]


def test_second_process_of_a_name_is_refused() -> None:
    result = simulate(faults=[SecondProcess("b", 0.5)])
    assert [refused.code.value for refused in result.refused] == ["name-in-use"]


def test_second_process_takes_over_from_a_frozen_one() -> None:
    result = simulate(faults=[Freeze("b", 0.25, 50.0), SecondProcess("b", 0.5)], rounds=30)
    assert [refused.code.value for refused in result.refused] == ["superseded"]
    assert applied(result) == [list(range(k * 4, k * 4 + 4)) for k in range(30)]


def test_stop_and_failing_update_end_the_run() -> None:
    assert simulate(faults=[Stop(0.5)], rounds=9).finish == simulate(faults=[Stop(1.5)], rounds=9).finish
    now = simulate(faults=[Stop(0.5, grace_s=0.0)]).finish
    failed = simulate(faults=[FailUpdate(2)]).finish
    assert now is not None
    assert failed is not None
    assert (now.outcome, failed.outcome) == (Outcome.STOPPED, Outcome.FAILED)


def test_run_that_nobody_can_finish_halts_with_what_it_has() -> None:
    result = simulate(faults=[Kill("a", 2.5), Kill("b", 2.5)])
    assert result.finish is None
    assert len(result.rounds) == 1


def test_duplicate_messages_change_nothing() -> None:
    plain = simulate(policy="greedy", world=BEATING)
    twice = simulate([replace(worker, duplicates=True) for worker in TWO], policy="greedy")
    assert applied(twice) == applied(plain)
    assert (twice.used_s, twice.wasted_s) == (plain.used_s, plain.wasted_s)
    assert twice.pushes > plain.pushes


def test_late_joiner_works_from_the_next_round_on() -> None:
    late = SimulatedWorker(name="c", task_s=(1.0,), joins_at_s=0.5, ready_s=0.25)
    result = simulate([*TWO, late], policy="uniform", rounds=3)
    names = [{name for name, _ in record.allocation} for record in result.rounds]
    assert names == [{"a", "b"}, {"a", "b", "c"}, {"a", "b", "c"}]


def test_seed_decides_every_draw() -> None:
    workers = [SimulatedWorker(name=name, task_s=Law("exp", (1.0,))) for name in "ab"]
    world = World(latency_s=Law("exp", (0.01,)))
    seconds = []
    for seed in (1, 1, 2):
        rule = make_policy("greedy", rng=np.random.default_rng(0))
        machine = Machine(MachineSettings(tasks=3, rounds=20, silent_after_s=1e9), rule)
        seconds.append(Simulation(machine, workers, world=world, seed=seed).run().seconds)
    assert seconds[0] == seconds[1] != seconds[2]


@pytest.mark.parametrize("micro_steps", [0, 2])
def test_worker_seconds_are_billed_also_where_messages_cross(micro_steps: int) -> None:
    law = Law("exp", (1.0,))
    workers = [SimulatedWorker(name=name, task_s=law, micro_steps=micro_steps) for name in "abcd"]
    result = simulate(workers, policy="greedy", rounds=100, world=World(latency_s=Law("exp", (0.3,)), heartbeat_s=0.5))
    worked_s = sum(result.busy_s.values())
    # The server may not have heard of the last bits of the last round.
    assert result.used_s + result.wasted_s == pytest.approx(worked_s, rel=0.005)


def test_names_may_not_repeat() -> None:
    with pytest.raises(SimulationError, match="expected different names"):
        simulate([TWO[0], TWO[0]])


class Meddler(Checked):
    """A machine whose effects are spoilt on the way."""

    def step(self, event: Event, now: float) -> list[Effect]:
        return [spoilt for effect in super().step(event, now) for spoilt in self.spoil(event, effect)]

    def spoil(self, event: Event, effect: Effect) -> list[Effect]:
        raise NotImplementedError


class AddsTwice(Meddler):
    def spoil(self, event: Event, effect: Effect) -> list[Effect]:
        return [effect, effect] if isinstance(effect, AddContribution) else [effect]


class ForgetsToAdd(Meddler):
    def spoil(self, event: Event, effect: Effect) -> list[Effect]:
        return [] if isinstance(effect, AddContribution) and isinstance(event, ContributionVerified) else [effect]


class SkipsAVersion(Meddler):
    def spoil(self, event: Event, effect: Effect) -> list[Effect]:
        return [replace(effect, version=effect.version + 1)] if isinstance(effect, ApplyUpdate) else [effect]


class CollectsWhatIsNotThere(Meddler):
    def spoil(self, event: Event, effect: Effect) -> list[Effect]:
        if isinstance(effect, SendCollect):
            return [replace(effect, kept=(*effect.kept, TaskId(99)))]
        return [effect]


@pytest.mark.parametrize(
    ("meddler", "words"),
    [
        (AddsTwice, "its bytes are not there"),
        (ForgetsToAdd, "was ordered: expected 0 samples of 0 tasks"),
        (SkipsAVersion, "update to version 2 was ordered: expected 1"),
        (CollectsWhatIsNotThere, "its sum has"),
    ],
)
def test_orders_that_cannot_be_carried_out_are_noticed(meddler: type[Meddler], words: str) -> None:
    machine = Machine(MachineSettings(tasks=2, rounds=2), make_policy("greedy", rng=np.random.default_rng(0)))
    with pytest.raises(SimulationError, match=words):
        Simulation(meddler(machine), TWO[:1], world=BEATING).run()


def test_deadline_that_does_not_move_is_noticed() -> None:
    class Stuck(Checked):
        @property
        def deadline(self) -> float | None:
            return 0.25

    machine = Machine(MachineSettings(tasks=2, rounds=2), make_policy("greedy", rng=np.random.default_rng(0)))
    with pytest.raises(SimulationError, match=r"deadline stays at 0.25 s"):
        Simulation(Stuck(machine), TWO[:1], world=BEATING).run()
