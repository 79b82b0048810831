"""The compiled rounds of CMAB and the K-sync family against the real machine, and against closed forms."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt
import pytest

from paceline.allocation import max_moments, order_statistic_moments, quadrature
from paceline.coordination import Machine, MachineSettings, Policy
from paceline.coordination.effects import Outcome
from paceline.coordination.policies.cmab import CmabKl, CmabLcb, CmabOracle
from paceline.coordination.policies.k_sync import KBatchSync, KSync
from paceline.coordination.policies.schedule import GrowingCount, Switches
from paceline.coordination.policies.shared import Columns
from paceline.simulation import SimulatedWorker, Simulation, SimulationResult
from paceline.simulation.compiled.employed import EMPLOYING, Block, EmployedRun, superarm_means_s
from paceline.simulation.compiled.streams import policy_generator, starting_streams, task_s
from paceline.simulation.shapes import Laws, Shape, parse_shape, scaled

MEANS_S = (0.5, 0.1, 0.9, 0.3, 0.3, 0.2, 0.7, 0.4)


class GreedyMean(CmabKl):
    """The experiment's baseline: the learned mean is the index."""

    def _indices(self, known: Columns, number: int) -> npt.NDArray[np.float64]:
        del number
        done = known.tasks_done > 0
        return np.where(done, known.busy_s / np.maximum(known.tasks_done, 1), -np.inf)


class AtRandom(CmabKl):
    """The experiment's baseline: any r workers."""

    def _indices(self, known: Columns, number: int) -> npt.NDArray[np.float64]:
        del number
        return np.zeros(known.tasks_done.size)


def policy_for(name: str, schedule: GrowingCount, seed: int) -> Policy:
    rng = policy_generator(seed)
    policies: dict[str, Policy] = {
        "cmab-oracle": CmabOracle(schedule, {f"w{i}": mean_s for i, mean_s in enumerate(MEANS_S)}),
        "cmab-kl": CmabKl(rng, schedule),
        "cmab-kl-theorem": CmabKl(rng, schedule, "theorem"),
        "cmab-lcb": CmabLcb(rng, schedule, max(MEANS_S)),
        "greedy-mean": GreedyMean(rng, schedule),
        "random": AtRandom(rng, schedule),
    }
    return policies[name]


def machine_run(policy: Policy, workers: list[SimulatedWorker], tasks: int, rounds: int) -> SimulationResult:
    settings = MachineSettings(
        tasks=tasks, rounds=rounds, min_workers=len(workers), silent_after_s=1e15, progress_s=1e15
    )
    result = Simulation(Machine(settings, policy), workers).run(until_s=1e9)
    assert result.finish is not None
    assert result.finish.outcome is Outcome.DONE
    return result


def same_times(block: Block) -> list[SimulatedWorker]:
    """Give the machine's workers the times that the compiled ones took, in order."""
    return [
        SimulatedWorker(name=f"w{i}", task_s=tuple(block.times_s[block.employed == i].tolist()) or (1.0,))
        for i in range(len(MEANS_S))
    ]


def check_decisions(name: str, law: Shape, rounds: int) -> None:
    schedule = GrowingCount(1, 1, 5, Switches(every=rounds // 5))
    run = EmployedRun(name, scaled(law, MEANS_S), schedule, seed=3)
    block = run.advance(rounds)
    result = machine_run(policy_for(name, schedule, seed=3), same_times(block), 5, rounds)
    ours = [[f"w{i}" for i in row if i >= 0] for row in block.employed.tolist()]
    assert [[str(worker) for worker, _ in record.allocation] for record in result.rounds] == ours
    assert result.round_s == pytest.approx(block.round_s.tolist(), rel=1e-6)
    assert result.used_s == pytest.approx(block.work_s.sum(), rel=1e-9)
    assert sum(result.busy_s.values()) == pytest.approx(run.learned.busy_s.sum(), rel=1e-12)


@pytest.mark.parametrize("name", EMPLOYING)
@pytest.mark.parametrize("law", ["exp", "const"])
def test_compiled_policy_employs_whom_the_machine_employs(name: str, law: str) -> None:
    check_decisions(name, parse_shape(law), 500)


@pytest.mark.slow
@pytest.mark.parametrize("name", EMPLOYING)
def test_compiled_policy_employs_whom_the_machine_employs_for_10000_rounds(name: str) -> None:
    check_decisions(name, parse_shape("exp"), 10_000)


@pytest.mark.parametrize("law", ["exp", "const"])
@pytest.mark.parametrize("policy", [KSync(3), KBatchSync()], ids=["k-sync", "k-batch-sync"])
def test_compiled_k_sync_family_is_the_machine(policy: Policy, law: str) -> None:
    """On the same streams every round takes as long, uses as many results of each, and wastes as much."""
    rounds, laws = 1000, scaled(parse_shape(law), MEANS_S)
    run = EmployedRun(policy.name, laws, GrowingCount(3, 1, 3), seed=4)
    block = run.advance(rounds)
    streams = starting_streams(len(MEANS_S), 4)
    workers = [
        SimulatedWorker(name=f"w{i}", task_s=partial(task_s, laws.kinds, laws.parameters, streams, i))
        for i in range(len(MEANS_S))
    ]
    result = machine_run(policy, workers, 3, rounds)
    assert result.round_s == pytest.approx(block.round_s.tolist(), rel=1e-6)
    assert result.used_s + result.wasted_s == pytest.approx(block.work_s.sum(), rel=1e-9)
    used = dict.fromkeys((f"w{i}" for i in range(len(MEANS_S))), 0)
    for record in result.rounds:
        for worker in record.workers:
            used[worker.name] += worker.used
    assert list(used.values()) == run.learned.tasks_done.tolist()


def mixed_laws() -> Laws:
    means_s = np.random.default_rng(0).choice(np.arange(1, 10) / 10.0, size=50)
    return scaled(parse_shape("exp"), means_s.tolist())


def test_k_sync_waits_for_the_order_statistic() -> None:
    """Section 3.2's closed forms: the K-th order statistic; K over the sum of the rates."""
    laws, schedule = mixed_laws(), GrowingCount(10, 1, 10)
    one_each = EmployedRun("k-sync", laws, schedule, seed=0).advance(20_000)
    assert one_each.round_s.mean() == pytest.approx(order_statistic_moments(laws.means_s, 10).mean_s, rel=0.01)
    refilled = EmployedRun("k-batch-sync", laws, schedule, seed=0).advance(20_000)
    assert refilled.round_s.mean() == pytest.approx(10 / (1 / laws.means_s).sum(), rel=0.01)


def test_round_of_the_oracle_takes_the_mean_of_the_maximum() -> None:
    laws = mixed_laws()
    block = EmployedRun("cmab-oracle", laws, GrowingCount(20, 1, 20), seed=0).advance(20_000)
    expected_s = max_moments(np.sort(laws.means_s)[:20]).mean_s
    assert block.round_s.mean() == pytest.approx(expected_s, rel=0.01)
    assert superarm_means_s(block.employed, block.counts, quadrature(laws.means_s)) == pytest.approx(
        np.full(20_000, expected_s), rel=1e-12
    )


def test_superarm_means_are_those_of_each_rounds_workers() -> None:
    laws = mixed_laws()
    block = EmployedRun("random", laws, GrowingCount(1, 3, 20, Switches(every=10)), seed=0).advance(60)
    means_s = superarm_means_s(block.employed, block.counts, quadrature(laws.means_s))
    for k in (0, 10, 25, 59):
        members = block.employed[k, : block.counts[k]]
        assert means_s[k] == pytest.approx(max_moments(laws.means_s[members]).mean_s, rel=1e-11)


@pytest.mark.parametrize("name", ["cmab-kl", "random", "k-batch-sync"])
def test_blocks_do_not_show(name: str) -> None:
    schedule = GrowingCount(1, 1, 8, Switches(every=100))
    laws = scaled(parse_shape("exp"), MEANS_S)
    whole, parts = (EmployedRun(name, laws, schedule, seed=5) for _ in range(2))
    together = whole.advance(900).round_s
    assert np.concatenate([parts.advance(m).round_s for m in (1, 399, 500)]).tolist() == together.tolist()


def test_policies_share_the_times_of_a_worker_in_a_round() -> None:
    laws, schedule = scaled(parse_shape("exp"), MEANS_S), GrowingCount(3, 1, 3)
    times: dict[tuple[int, int], float] = {}
    for name in EMPLOYING:
        block = EmployedRun(name, laws, schedule, seed=2).advance(200)
        for k in range(200):
            for worker, seconds in zip(block.employed[k].tolist(), block.times_s[k].tolist(), strict=True):
                assert times.setdefault((k, worker), seconds) == seconds


def test_employments_are_counted_at_dispatch() -> None:
    schedule = GrowingCount(1, 1, 8, Switches((3, 5)))
    laws = scaled(parse_shape("exp"), MEANS_S)
    expected = {"cmab-lcb": 3 * 1 + 2 * 2 + 2 * 3, "k-sync": 7 * 8, "k-batch-sync": 7 * 8 + 3 * 0 + 2 * 1 + 2 * 2}
    for name, total in expected.items():
        run = EmployedRun(name, laws, schedule, seed=0)
        assert run.employments(run.advance(7)).sum() == total
