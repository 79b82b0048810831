"""The real machine on the virtual clock gives the papers' numbers and, draw for draw, the algorithms' decisions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from paceline.allocation import allocate, ata_empirical_scores, ata_scores, constant_for, spread
from paceline.coordination import Machine, MachineSettings
from paceline.coordination.effects import Outcome
from paceline.coordination.ids import WorkerName
from paceline.coordination.policies import PolicyOptions, make_policy
from paceline.laws import Law
from paceline.simulation import SimulatedWorker, Simulation, SimulationResult

B = 23
FOREVER_S = 1e15
CONSTANT_S = (0.010, 0.020, 0.040, 0.080)


def simulate(policy: str, workers: list[SimulatedWorker], rounds: int, seed: int = 0) -> SimulationResult:
    """Run a policy without faults, heartbeats and latency; a cancel takes effect at once, as in the papers."""
    means_s = {worker.name: mean(worker) for worker in workers}
    rule = make_policy(
        policy, PolicyOptions(means_s=means_s, alpha_s=alpha_s(workers)), rng=np.random.default_rng(seed)
    )
    settings = MachineSettings(
        tasks=B, rounds=rounds, min_workers=len(workers), silent_after_s=FOREVER_S, progress_s=FOREVER_S
    )
    result = Simulation(Machine(settings, rule), workers, seed=seed).run()
    assert result.finish is not None
    assert result.finish.outcome is Outcome.DONE
    return result


def mean(worker: SimulatedWorker) -> float:
    if isinstance(worker.task_s, Law):
        return worker.task_s.mean_s
    assert isinstance(worker.task_s, tuple)
    return float(np.mean(worker.task_s))


def alpha_s(workers: list[SimulatedWorker]) -> float:
    return 2 * max(mean(worker) for worker in workers)


def square_root_workers(n: int) -> list[SimulatedWorker]:
    """The main experiment's laws: 29 sqrt(i) + Exp(29 sqrt(i))."""
    return [SimulatedWorker(name=f"w{i}", task_s=Law("shifted-exp", (29.0 * i**0.5,))) for i in range(1, n + 1)]


def constant_workers() -> list[SimulatedWorker]:
    return [SimulatedWorker(name=f"w{i}", task_s=(seconds,)) for i, seconds in enumerate(CONSTANT_S)]


def decisions(policy: str, workers: list[SimulatedWorker], result: SimulationResult, seed: int) -> list[list[int]]:
    """Decide every round by the pure functions on the times recorded before it, with the same generator."""
    n, rng = len(workers), np.random.default_rng(seed)
    place = {worker.name: number for number, worker in enumerate(workers)}
    means = np.array([mean(worker) for worker in workers])
    done, busy_s = np.zeros(n, dtype=np.int64), np.zeros(n)
    decided = []
    for record in result.rounds:
        decided.append(_decide(policy, record.round, done, busy_s, means, alpha_s(workers), rng).tolist())
        for lease in result.leases:
            if lease.round == record.round:
                for task in lease.results:
                    done[place[lease.worker]] += 1
                    busy_s[place[lease.worker]] += task.seconds
    return decided


def _decide(
    policy: str,
    number: int,
    done: npt.NDArray[np.int64],
    busy_s: npt.NDArray[np.float64],
    means: npt.NDArray[np.float64],
    alpha: float,
    rng: np.random.Generator,
) -> npt.NDArray[np.int64]:
    n = len(done)
    match policy:
        case "uniform":
            return spread(B, np.arange(n), n, rng)
        case "fixed":
            return allocate(means, B, rng)
        case "ata":
            scores = ata_scores(done, busy_s, number, alpha, constant_for("ata", "paper"))
        case _:
            scores = ata_empirical_scores(done, busy_s, number, constant_for("ata-empirical", "paper"))
    return allocate(scores, B, rng)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("policy", ["ata", "ata-empirical", "uniform", "fixed"])
@pytest.mark.parametrize("workers", [constant_workers(), square_root_workers(7)], ids=["constant", "random"])
def test_decisions_are_the_pure_functions_on_the_recorded_times(
    policy: str, workers: list[SimulatedWorker], seed: int
) -> None:
    result = simulate(policy, workers, 120, seed)
    planned = [dict(record.allocation) for record in result.rounds]
    rows = [[row.get(WorkerName(worker.name), 0) for worker in workers] for row in planned]
    assert rows == decisions(policy, workers, result, seed)


def test_fixed_finds_the_best_split_of_constant_times() -> None:
    result = simulate("fixed", constant_workers(), 20)
    assert {record.allocation for record in result.rounds} == {(("w0", 13), ("w1", 6), ("w2", 3), ("w3", 1))}
    assert result.round_s == pytest.approx([0.130] * 20)


def test_ata_empirical_explores_as_much_as_the_algorithm_itself() -> None:
    oracle_s = 0.130
    runs = [np.cumsum(simulate("ata-empirical", constant_workers(), 50, seed).round_s) for seed in range(10)]
    assert np.mean([elapsed[49] for elapsed in runs]) / (50 * oracle_s) == pytest.approx(1.785, abs=0.03)
    elapsed_s = simulate("ata-empirical", constant_workers(), 500).seconds
    assert elapsed_s / (500 * oracle_s) == pytest.approx(1.24, abs=0.01)


@pytest.mark.parametrize(
    ("policy", "round_s", "worker_s"),
    [("greedy", 243.7, 17 * 243.7), ("fixed", 425.0, 3290.0), ("uniform", 580.0, 3813.0)],
)
def test_means_per_round_are_those_of_the_main_experiment(policy: str, round_s: float, worker_s: float) -> None:
    """Numbers of specs/ata.md 6.5, n = 17, means 58 sqrt(i): within 2 % (their error and ours)."""
    rounds = 1000
    result = simulate(policy, square_root_workers(17), rounds, seed=1)
    assert np.mean(result.round_s) == pytest.approx(round_s, rel=0.02)
    assert (result.used_s + result.wasted_s) / rounds == pytest.approx(worker_s, rel=0.02)
    # What is recorded is what was worked, to the last float but summation order.
    assert result.used_s + result.wasted_s == pytest.approx(sum(result.busy_s.values()), rel=1e-9)


def test_only_greedy_wastes_work() -> None:
    wasted = {name: simulate(name, square_root_workers(5), 50).wasted_s for name in ("greedy", "uniform", "fixed")}
    assert wasted["greedy"] > 0
    assert wasted["uniform"] == wasted["fixed"] == 0
