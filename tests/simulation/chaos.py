"""Random clusters with random faults, all from one seed, and what must be true of a run whatever happened in it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeGuard

import numpy as np

from paceline.coordination import Machine, MachineSettings, Policy
from paceline.coordination.effects import LeaseVerdict, Outcome
from paceline.coordination.events import Rejection, TaskFailure
from paceline.coordination.policies import EMPLOYING, SINGLE_RESULT, PolicyOptions, make_policy
from paceline.laws import Law
from paceline.simulation import (
    CorruptPush,
    CutPush,
    CutSession,
    Drain,
    FailTask,
    Fault,
    Freeze,
    HangTask,
    Kill,
    LoseAnswer,
    Pause,
    SecondProcess,
    SimulatedWorker,
    Simulation,
    SimulationResult,
    World,
)
from tests.coordination.checked import Checked
from tests.coordination.policies import Trials

ALL_TASKS = ("ata-empirical", "ata", "uniform", "fixed")
DISTINCT = ("k-sync", "k-async")
SOME_TASKS = ("cmab-lcb", "cmab-kl", "cmab-oracle", "adaptive-k-sync", "backup", "mindflayer", "malenia", "trials")
# With these a run may go slower for want of workers, but not stand still; the others need all that they asked for.
NEEDS_WORKERS = {*EMPLOYING, "malenia"}
# Results of so many versions behind, or more, are dropped.
STALENESS = {"k-async": 3, "ringmaster": 2}
LATE_WORK = ("k-async", "k-batch-async", "asgd", "ringmaster")


@dataclass(frozen=True)
class Case:
    """One random run; the seed decides everything."""

    policy: str
    seed: int
    tasks: int
    rounds: int
    quota: int
    workers: tuple[SimulatedWorker, ...]
    faults: tuple[Fault, ...]
    world: World

    @property
    def parts(self) -> int:
        """One worker is spare."""
        return max(1, len(self.workers) - 1) if self.policy == "malenia" else 0

    def make_policy(self) -> Policy:
        if self.policy == "trials":
            return Trials(2, 0.05)
        names = tuple(worker.name for worker in self.workers)
        options = PolicyOptions(
            tasks=self.quota if self.policy in EMPLOYING else self.tasks,
            means_s={name: 0.01 * (1 + i) for i, name in enumerate(names)},
            k_burn_in=2,
            switch_at="every:3" if self.policy == "cmab-kl" else None,
            staleness=STALENESS.get(self.policy),
            parts=self.parts,
        )
        return make_policy(self.policy, options, rng=np.random.default_rng(self.seed))

    def make_machine(self) -> Machine:
        settings = MachineSettings(
            tasks=self.quota if self.policy in EMPLOYING else self.tasks,
            parts=self.parts,
            rounds=self.rounds,
            lost_after_s=0.2,
            silent_after_s=1.0,
            progress_s=1.0,
            probe_s=0.1,
            aside_s=0.1,
            aside_max_s=0.4,
        )
        return Machine(settings, self.make_policy())

    def run(self, *, keep: bool = False) -> tuple[SimulationResult, Checked]:
        machine = Checked(self.make_machine(), keep=keep)
        simulation = Simulation(machine, self.workers, faults=self.faults, world=self.world, seed=self.seed)
        return simulation.run(until_s=2000.0), machine


def random_case(policy: str, seed: int) -> Case:
    """Draw a cluster and its faults. One worker, the first, stays; one, the second, is the one that fails tasks."""
    rng = np.random.default_rng([seed, len(policy)])
    n = int(rng.integers(2, 6))
    latency_s = [None, Law("exp", (0.002,)), Law("exp", (0.02,))][int(rng.integers(3))]
    workers = [
        SimulatedWorker(
            name=f"w{i}",
            task_s=Law("shifted-exp", (float(rng.uniform(0.002, 0.03)),)),
            push_s=float(rng.choice([0.0, 0.02])),
            pull_s=float(rng.choice([0.0, 0.01])),
            joins_at_s=0.0 if i == 0 else float(rng.choice([0.0, 0.0, 0.3])),
            ready_s=float(rng.choice([0.0, 0.05])),
            micro_steps=int(rng.choice([0, 1, 3])),
            duplicates=bool(rng.integers(4) == 0),
        )
        for i in range(n)
    ]
    rounds = int(rng.integers(5, 40)) * (4 if policy in SINGLE_RESULT else 1)
    faults = [fault for _ in range(int(rng.integers(0, 12))) for fault in _random_faults(rng, n)]
    if policy == "malenia":
        # A worker may do any number of tasks in its first round; while its task time is not learned, it is waited for.
        # And nobody else may try a task again.
        faults = [fault for fault in faults if not isinstance(fault, HangTask | FailTask)]
    if policy in NEEDS_WORKERS:
        leavers = [fault.worker for fault in faults if _leaves_for_good(fault)]
        # Of malenia's, one is spare.
        may_leave = leavers[:1] if policy == "malenia" else []
        faults = [fault for fault in faults if not _leaves_for_good(fault) or fault.worker in may_leave]
    if seed % 3 == 0 and policy != "malenia":
        # From a generator of its own: cases of other seeds stay what they were.
        faults += _pauses(np.random.default_rng([seed, 1]), n)
    world = World(
        latency_s=latency_s,
        update_s=float(rng.choice([0.0, 0.01])),
        heartbeat_s=0.1,
        samples=4,
    )
    tasks = int(rng.integers(1, 13))
    return Case(
        policy=policy,
        seed=seed,
        tasks=tasks,
        rounds=rounds,
        quota=int(rng.integers(1, n + 1)),
        workers=tuple(workers),
        faults=tuple(faults),
        world=world,
    )


def _pauses(rng: np.random.Generator, n: int) -> list[Fault]:
    at_s = [float(second) for second in rng.uniform(0.0, 1.5, 3)]
    return [Pause(f"w{rng.integers(n)}", second, second + float(rng.choice([0.001, 0.1, 1.0]))) for second in at_s]


def _random_faults(rng: np.random.Generator, n: int) -> list[Fault]:
    anyone = f"w{rng.integers(n)}"
    leaver = f"w{rng.integers(1, n)}"
    at_s = float(rng.uniform(0.0, 1.5))
    nth = int(rng.integers(1, 12))
    again_s = float(rng.choice([0.01, 0.05, 0.5]))
    makers: list[Callable[[], list[Fault]]] = [
        lambda: [Kill(leaver, at_s, None if rng.integers(2) else again_s)],
        lambda: [Kill(anyone, at_s, again_s)],
        lambda: [Freeze(anyone, at_s, at_s + float(rng.choice([0.05, 0.5, 1.5, 3.0])))],
        lambda: [Freeze(anyone, at_s, at_s + 0.6), SecondProcess(anyone, at_s + 0.1)],
        lambda: [CutSession(anyone, at_s, again_s, float(rng.choice([0.0, 0.02, 1.0])))],
        lambda: [CutSession(anyone, at_s + 0.1 * i, 0.01, float(rng.choice([0.0, 0.02]))) for i in range(4)],
        lambda: [CutPush(anyone, nth), CutPush(anyone, nth + 1)],
        lambda: [LoseAnswer(anyone, nth)],
        lambda: [CorruptPush(anyone, nth, _random_rejection(rng))],
        lambda: [FailTask("w1", int(rng.integers(0, 60)), 1, _random_failure(rng))],
        lambda: [HangTask(leaver, 12 + nth)],
        lambda: [Drain(leaver, at_s)],
        lambda: [SecondProcess(anyone, at_s)],
    ]
    return makers[int(rng.integers(len(makers)))]()


def _leaves_for_good(fault: Fault) -> TypeGuard[Drain | Kill]:
    return isinstance(fault, Drain) or (isinstance(fault, Kill) and fault.restart_after_s is None)


def _random_rejection(rng: np.random.Generator) -> Rejection:
    some = [Rejection.CHECKSUM, Rejection.TRUNCATED, Rejection.WRONG_TASKS, Rejection.WRONG_VERSION, Rejection.TOO_SLOW]
    return some[int(rng.integers(len(some)))]


def _random_failure(rng: np.random.Generator) -> TaskFailure:
    return [TaskFailure.EXCEPTION, TaskFailure.NON_FINITE, TaskFailure.OUT_OF_MEMORY][int(rng.integers(3))]


def check(case: Case, result: SimulationResult) -> None:
    """Assert what holds for every run to its end."""
    assert result.finish is not None, "the run has not ended"
    assert result.finish.outcome is Outcome.DONE, result.finish
    model = result.model
    applied = Counter(model.applied_tasks())
    assert all(times == 1 for times in applied.values()), applied
    assert [record.version for record in result.rounds] == list(range(1, case.rounds + 1))
    assert len(model.updates) == case.rounds
    for record, update in zip(result.rounds, model.updates, strict=True):
        _check_round(case, record.tasks_used, update.tasks(), record.round)
    _check_leases(case, result)
    _check_seconds(case, result)
    _check_stream(result)


def _check_round(case: Case, tasks_used: int, tasks: Sequence[int], number: int) -> None:
    assert tasks_used == len(tasks)
    if case.policy in DISTINCT:
        assert 1 <= len(tasks) <= case.quota
    elif case.policy in SINGLE_RESULT:
        assert len(tasks) == 1
    elif case.policy in ("k-batch-sync", "k-batch-async", "greedy"):
        assert len(tasks) == case.tasks
    elif case.policy in ALL_TASKS:
        assert tasks == list(range((number - 1) * case.tasks, number * case.tasks))
    else:
        assert case.policy in SOME_TASKS
        assert len(tasks) >= 1


def _check_leases(case: Case, result: SimulationResult) -> None:
    records = {record.lease: record for record in result.leases}
    assert len(records) == len(result.leases), "a lease was recorded twice"
    for update in result.model.updates:
        for applied in update.contributions:
            record = records[applied.lease]
            assert record.verdict in (LeaseVerdict.APPLIED, LeaseVerdict.PARTLY_APPLIED)
            assert set(record.kept) == {done.task for done in applied.results}
            assert (record.weight, record.version, record.round) == (applied.weight, applied.version, update.version)
            staleness = STALENESS.get(case.policy, math.inf if case.policy in LATE_WORK else 1)
            assert update.version - 1 - applied.version < staleness
    kept = Counter(task for record in result.leases for task in record.kept)
    assert kept == Counter(task for update in result.model.updates for task in update.tasks())


def _check_seconds(case: Case, result: SimulationResult) -> None:
    truth = math.fsum(
        done.seconds for update in result.model.updates for applied in update.contributions for done in applied.results
    )
    assert math.isclose(result.used_s, truth, rel_tol=1e-9, abs_tol=1e-9)
    assert result.wasted_s >= -1e-9
    by_lease = math.fsum(record.wasted_s for record in result.leases)
    assert math.isclose(result.wasted_s, by_lease, rel_tol=1e-9, abs_tol=1e-9), (result.wasted_s, by_lease)
    if case.policy in ("k-async", "k-batch-async", "asgd") and case.policy not in STALENESS and not case.faults:
        assert result.wasted_s == 0.0
    if not case.faults and case.world.latency_s is None and case.policy not in LATE_WORK:
        assert math.isclose(result.used_s + result.wasted_s, sum(result.busy_s.values()), rel_tol=1e-9)


def _check_stream(result: SimulationResult) -> None:
    """At each commit every id that was ever handed out is either applied or returned: a run could be resumed there."""
    applied: set[int] = set()
    for record, update in zip(result.rounds, result.model.updates, strict=True):
        applied |= set(update.tasks())
        returned = set(record.returned)
        assert len(returned) == len(record.returned)
        assert not returned & applied
        parts = len(record.next_tasks)
        assert returned | applied == {
            task for next_task in record.next_tasks for task in range(next_task % parts, next_task, parts)
        }


def without_one_fault(case: Case) -> list[Case]:
    """Give the smaller cases, to look for a minimal one."""
    return [replace(case, faults=case.faults[:i] + case.faults[i + 1 :]) for i in range(len(case.faults))]
