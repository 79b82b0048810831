"""The compiled path takes the coordinator's decisions, and its sums are those of the workers' times."""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest

from paceline.allocation import spread
from paceline.allocation.uniform import FEW
from paceline.simulation import SimulationResult
from paceline.simulation.compiled.kernels import BAD, TIME, WORK
from paceline.simulation.compiled.run import COMPILED, CompiledRun
from paceline.simulation.compiled.streams import policy_generator
from paceline.simulation.experiments.coordinated import run_on_coordinator
from paceline.simulation.setting import Setting
from paceline.simulation.shapes import parse_shape, scaled


def sqrt_setting(n: int, tasks: int, constants: str, law: str = "shifted-exp") -> Setting:
    means_s = [58.0 * i**0.5 for i in range(1, n + 1)]
    return Setting(laws=scaled(parse_shape(law), means_s), tasks=tasks, constants=constants, seed=5)


def tasks_of_rounds(result: SimulationResult, n: int, policy: str) -> npt.NDArray[np.int64]:
    """Give tasks per worker and round: as planned, or for greedy those used."""
    tasks = np.zeros((len(result.rounds), n), dtype=np.int64)
    if policy == "greedy":
        used = Counter((lease.round, lease.worker) for lease in result.leases for _ in lease.kept)
        for (number, worker), count in used.items():
            tasks[number - 1, int(worker[1:]) - 1] = count
        return tasks
    for record in result.rounds:
        for worker, count in record.allocation:
            tasks[record.round - 1, int(worker[1:]) - 1] = count
    return tasks


def check_against_the_machine(policy: str, setting: Setting, rounds: int) -> CompiledRun:
    result = run_on_coordinator(policy, setting, rounds)
    expected = tasks_of_rounds(result, setting.laws.workers, policy)
    run = CompiledRun(policy, setting)
    for number in range(rounds):
        run.advance(1)
        assert run.allocation.tolist() == expected[number].tolist(), f"round {number + 1}"
    assert run.sums[TIME] == pytest.approx(result.seconds, rel=1e-9)
    assert run.sums[WORK] == pytest.approx(result.used_s + result.wasted_s, rel=1e-9)
    assert run.tasks_done.tolist() == expected.sum(axis=0).tolist()
    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policy", "n", "constants"),
    [("ata", 17, "0.1"), ("ata-empirical", 17, "0.5"), ("uniform", 17, "paper"), ("fixed", 5, "paper"),
     ("greedy", 5, "paper")],
)  # fmt: skip
def test_decisions_are_the_coordinators_for_ten_thousand_rounds(policy: str, n: int, constants: str) -> None:
    run = check_against_the_machine(policy, sqrt_setting(n, 3, constants), 10_000)
    if policy in ("ata", "ata-empirical"):
        # Both branches were gone through: rounds by the zero rule, and rounds by score.
        assert 50 < run.sums[BAD] < 9_950


@pytest.mark.parametrize(("n", "tasks"), [(5, 3), (5, 23), (17, 23)])
@pytest.mark.parametrize("policy", COMPILED)
def test_decisions_are_the_coordinators_whatever_the_numbers(policy: str, n: int, tasks: int) -> None:
    check_against_the_machine(policy, sqrt_setting(n, tasks, "0.5"), 300)


@pytest.mark.parametrize(
    ("law", "policy"),
    # The order of results that come at the same instant, as spikes' do, is nobody's decision: not for greedy.
    [(law, policy) for law in ("uniform:0.5", "lognormal:0.5", "gamma:0.5", "spikes:0.1:10") for policy in COMPILED
     if (law[:6], policy) != ("spikes", "greedy")],
)  # fmt: skip
def test_decisions_are_the_coordinators_whatever_the_law(policy: str, law: str) -> None:
    check_against_the_machine(policy, sqrt_setting(5, 7, "paper", law), 150)


@pytest.mark.parametrize("tasks", [FEW - 1, FEW + 1, 6000 + FEW + 1])
def test_spreading_many_tasks_draws_as_the_allocation_does(tasks: int) -> None:
    n = 6000
    setting = Setting(laws=scaled(parse_shape("const"), [1.0] * n), tasks=tasks, seed=3)
    run, rng = CompiledRun("uniform", setting), policy_generator(setting.seed)
    for _ in range(3):
        run.advance(1)
        assert run.allocation.tolist() == spread(tasks, np.arange(n), n, rng).tolist()


@pytest.mark.parametrize("law", ["shifted-exp", "exp", "uniform:0.5"])
def test_greedy_leaves_slow_workers_undrawn_and_their_streams_in_step(law: str) -> None:
    """Means so far apart that most workers' first tasks end after the round; made use of within a block."""
    means_s = [58.0 * i for i in range(30, 0, -1)]
    setting = Setting(laws=scaled(parse_shape(law), means_s), tasks=3, seed=2)
    result, run = run_on_coordinator("greedy", setting, 150), CompiledRun("greedy", setting)
    run.advance(150)
    assert run.tasks_done.tolist() == tasks_of_rounds(result, 30, "greedy").sum(axis=0).tolist()
    assert run.sums[TIME] == pytest.approx(result.seconds, rel=1e-9)
    assert run.sums[WORK] == pytest.approx(result.used_s + result.wasted_s, rel=1e-9)


@pytest.mark.parametrize("policy", COMPILED)
def test_a_block_of_rounds_is_those_rounds(policy: str) -> None:
    setting = sqrt_setting(40, 23, "0.3")
    block, single = CompiledRun(policy, setting), CompiledRun(policy, setting)
    block.advance(2000)
    for _ in range(2000):
        single.advance(1)
    assert block.sums.tolist() == single.sums.tolist()
    assert block.tasks_done.tolist() == single.tasks_done.tolist()
    assert block.allocation.tolist() == single.allocation.tolist()
