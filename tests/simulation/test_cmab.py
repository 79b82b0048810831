"""The CMAB experiment: reference numbers, one loss curve for all, the bill, regret, and bad settings."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from paceline.allocation import max_moments, quadrature
from paceline.coordination.policies.schedule import GrowingCount
from paceline.errors import UsageError
from paceline.simulation.compiled.employed import EMPLOYING, EmployedRun, superarm_means_s
from paceline.simulation.compiled.streams import STEP, hashed, unit
from paceline.simulation.experiments.cmab import POLICIES, CmabResult, CmabSettings, regret_bound_s, run_cmab
from paceline.simulation.experiments.listener import Nobody
from paceline.simulation.experiments.regression import loss_curve, regression
from paceline.simulation.shapes import parse_shape, scaled

SMALL = CmabSettings(workers=8, tasks=4, rounds=600, repeats=2)


@cache
def full() -> CmabResult:
    """The preset on the workers that the reference numbers were taken with."""
    return run_cmab(CmabSettings(seed=1))


# Section 2.4 of our notes on the paper: total of the response times, mean of 10 instances.
REFERENCE = {
    "cmab-oracle": (10942, 210_000),
    "cmab-kl": (11383, 210_000),
    "cmab-kl-theorem": (11572, 210_000),
    "greedy-mean": (12456, 210_000),
    "cmab-lcb": (16230, 210_000),
    "k-sync": (1831, 1_000_000),
}


@pytest.mark.slow
@pytest.mark.parametrize("policy", REFERENCE)
def test_reference_numbers(policy: str) -> None:
    row = next(row for row in full().rows() if row["policy"] == policy)
    time_s, employments = REFERENCE[policy]
    assert row["time_s"] == pytest.approx(time_s, rel=0.03)
    assert row["oracle_ratio"] == pytest.approx(time_s / REFERENCE["cmab-oracle"][0], rel=0.03)
    assert row["employments"] == employments


@pytest.mark.slow
def test_gap_falls_as_in_the_sanity_table() -> None:
    """Section 5: at r = 1, 5 and 20; one run, hence the wide bands."""
    result = full()
    gaps = [float(np.interp(at, result.rounds, result.gaps)) for at in (1000, 5000)]
    assert gaps == pytest.approx([5.9e4, 2.0e2], rel=0.5)
    assert 1e-5 < np.median(result.gaps[result.rounds > 19_500]) < 3e-4


def test_budget_is_the_sum_of_the_stages() -> None:
    """Section 1: B = sum over r of r (T_r - T_(r-1)); the last stage is shorter where b does not divide the rounds."""
    settings = CmabSettings(workers=8, tasks=4, rounds=10, repeats=1)
    budget = 1 * 3 + 2 * 3 + 3 * 3 + 4 * 1
    for run in run_cmab(settings).runs:
        extra = {"k-sync": 8 * 10, "k-batch-sync": 8 * 10 + budget - 10}
        assert run.employments[-1] == extra.get(run.policy, budget), run.policy
        assert sum(run.repeats[0].tasks_per_worker) == budget, run.policy


def test_policies_that_use_as_many_fresh_results_share_one_loss_curve() -> None:
    """Section 5, key identity: bit for bit, as a batch is keyed by round and slot and not by its worker."""
    settings, result = SMALL, run_cmab(SMALL)
    problem = regression(settings.seed, settings.tasks)
    employed = []
    for policy in EMPLOYING:
        block = EmployedRun(policy, settings.laws()[0], settings.schedule, settings.seed).advance(settings.rounds)
        employed.append(block.employed.tolist())
        used = (block.employed >= 0).sum(axis=1)
        gaps = loss_curve(problem, used, result.rounds, seed=settings.seed, listener=Nobody())
        assert gaps.tolist() == result.gaps.tolist(), policy
    assert employed[0] != employed[1]


def test_loss_curve_is_sgd_over_the_workers_batches() -> None:
    """Eq. (1), written out: each slot's batch without replacement, by its own stream, and the plain average."""
    problem, counts = regression(0, 20), np.array([1, 2, 3, 3, 2])
    key = np.random.SeedSequence([7, 4]).generate_state(1, np.uint64)[0]
    w, gaps = np.zeros(100), []
    with np.errstate(over="ignore"):
        for number, count in enumerate(counts.tolist()):
            gradients = []
            for slot in range(count):
                order, state = np.arange(2000), again(again(key + np.uint64(number) * STEP) + np.uint64(slot) * STEP)
                for place in range(100):
                    state += STEP
                    other = place + int(unit(again(state)) * (2000 - place))
                    order[[place, other]] = order[[other, place]]
                rows = problem.x[order[:100]]
                gradients.append(rows.T @ (rows @ w - problem.y[order[:100]]))
            w = w - 1e-4 / (count * 100) * np.sum(gradients, axis=0)
            gaps.append(problem.gap(w))
    ours = loss_curve(problem, counts, np.arange(1, 6), seed=7, listener=Nobody())
    assert ours == pytest.approx(gaps, rel=1e-9)


def again(bits: np.uint64) -> np.uint64:
    """Hash, and give the type back that compiled code loses on its way to Python."""
    return np.uint64(hashed(bits))


def test_problem_is_padded_to_whole_batches() -> None:
    problem = regression(0, 30)
    assert problem.x.shape == (2010, 100)
    assert not problem.x[2000:].any()
    assert problem.gap(problem.optimum) == 0.0
    normal = problem.x.T @ (problem.x @ problem.optimum - problem.y)
    assert np.abs(normal).max() < 1e-4
    assert np.linalg.eigvalsh(problem.x.T @ problem.x / 2000)[-1] == pytest.approx(3032, rel=0.01)


@pytest.mark.slow
def test_oracle_has_no_regret_and_the_bound_holds() -> None:
    result = full()
    regrets = {run.policy: run.mean.trajectory.regret_s for run in result.runs}
    assert not regrets["cmab-oracle"].any()
    assert np.isnan(regrets["k-sync"]).all()
    for policy in ("cmab-kl", "cmab-lcb"):
        assert (np.diff(regrets[policy]) > -1e-9).all()
        assert (regrets[policy][1:] < result.bound_s[1:]).all()
    assert regrets["cmab-kl"][-1] < regrets["greedy-mean"][-1] < regrets["cmab-lcb"][-1] < regrets["random"][-1]


def test_bound_by_hand() -> None:
    """Theorem 2: means 1, 2, 4 and r = 1, 2 at j = 100."""
    numbers = np.array([100, 100])
    bound_s = regret_bound_s(np.array([2.0, 1.0, 4.0]), np.array([1, 2]), numbers)
    share = 1.0 / 4.0
    pulls = 48 * math.log(100) / share**2 + 1
    of_two = (2 + 4 - 1 / (1 / 2 + 1 / 4)) - (1 + 2 - 1 / (1 + 1 / 2))
    expected = [(4 - 1) * 3 * (pulls + math.pi**2 / 3), max(3, of_two) * 3 * (pulls + 2 * math.pi**2 / 3)]
    assert bound_s.tolist() == pytest.approx(expected)
    assert regret_bound_s(np.ones(4), np.array([2]), np.array([100])).tolist() == [0.0]


def test_regret_of_the_kl_index_grows_like_the_logarithm() -> None:
    """Theorem 3's shape: each decade of rounds adds about as much; greedy's grows with the rounds themselves."""
    laws = scaled(parse_shape("exp"), [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    nodes_optimum_s = {}
    for policy in ("cmab-kl", "greedy-mean"):
        at = np.zeros(3)
        for seed in range(30):
            run = EmployedRun(policy, laws, GrowingCount(2, 1, 2), seed)
            regret_s = _regret_s(run, 30_000)
            at += regret_s[[299, 2999, 29_999]]
        nodes_optimum_s[policy] = (at[2] - at[1]) / (at[1] - at[0])
    assert 0.5 < nodes_optimum_s["cmab-kl"] < 2.0
    assert nodes_optimum_s["greedy-mean"] > 8.0


def _regret_s(run: EmployedRun, rounds: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    means_s = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    block = run.advance(rounds)
    expected_s = superarm_means_s(block.employed, block.counts, quadrature(means_s))
    return np.asarray(np.cumsum(expected_s - max_moments(means_s[:2]).mean_s))


@pytest.mark.parametrize("law", ["lognormal:0.5", "const", "gamma:2", "uniform:0.5"])
def test_other_laws_have_a_regret_against_the_oracle_on_the_same_times(law: str) -> None:
    settings = CmabSettings(workers=8, tasks=4, rounds=600, repeats=2, law=parse_shape(law))
    result = run_cmab(settings)
    regrets = {run.policy: run.mean.trajectory.regret_s for run in result.runs}
    assert not regrets["cmab-oracle"].any()
    assert regrets["random"][-1] > 3 * regrets["cmab-kl"][-1]
    assert np.isnan(result.bound_s).all()


def test_same_seed_same_numbers_and_means_can_be_given() -> None:
    means_s = tuple(np.linspace(0.1, 0.8, 8).tolist())
    settings = CmabSettings(workers=8, tasks=4, rounds=200, repeats=2, means_s=means_s)
    first, again = (run_cmab(settings).rows() for _ in range(2))
    for row in first + again:
        del row["seconds"]
    assert first == again
    assert [laws.means_s.tolist() for laws in settings.laws()] == [list(means_s)] * 2


def test_rows_are_json_and_have_every_policy() -> None:
    table = json.loads(json.dumps(run_cmab(SMALL).rows(), allow_nan=False))
    assert [row["policy"] for row in table] == list(POLICIES)
    for row in table:
        assert (row["workers"], row["tasks"], row["rounds"]) == (8, 4, 600)
        assert row["time_s"] == pytest.approx(row["mean_round_s"] * 600)
        assert len(row["tasks_per_worker"]) == 8
    assert table[0]["oracle_ratio"] == 1.0
    batch = next(row for row in table if row["policy"] == "k-batch-sync")
    assert (batch["runtime_ratio"], batch["work_ratio"]) == (1.0, 1.0)
    assert table[0]["average_regret"] == 0.0
    assert batch["average_regret"] is None


class StopAt:
    """Has enough at a policy's given round."""

    def __init__(self, policy: str, rounds: int) -> None:
        self._at = (policy, rounds)
        self._stopped = False

    def went_on(self, policy: str, rounds: int) -> None:
        self._stopped |= (policy, rounds) == self._at

    def stopped(self) -> bool:
        return self._stopped


class StopAtSecond(StopAt):
    """Lets the first repetition pass."""

    def __init__(self, policy: str, rounds: int) -> None:
        super().__init__(policy, rounds)
        self._passed = 0

    def went_on(self, policy: str, rounds: int) -> None:
        self._passed += (policy, rounds) == self._at
        self._stopped |= self._passed > 1


def test_stopped_experiment_keeps_what_was_computed() -> None:
    settings = CmabSettings(workers=8, tasks=4, rounds=3000, repeats=2)
    result = run_cmab(settings, StopAt("greedy-mean", 2000))
    assert result.interrupted
    # Of the last one that was begun, what it did until its last checkpoint.
    table = {row["policy"]: row for row in result.rows()}
    assert list(table) == ["cmab-oracle", "cmab-kl", "cmab-kl-theorem", "greedy-mean"]
    assert [len(run.repeats) for run in result.runs] == [1, 1, 1, 1]
    assert [row["rounds"] == 3000 for row in table.values()] == [True, True, True, False]
    partial = table["greedy-mean"]
    assert 0 < partial["rounds"] <= 2000
    assert partial["employments"] == result.settings.counts[: partial["rounds"]].sum()
    assert partial["oracle_ratio"] is None
    # A whole repetition is not mixed with a part of the next one.
    later = run_cmab(replace(settings, policies=("random",)), StopAtSecond("random", 1000))
    assert [len(run.repeats) for run in later.runs] == [1]
    early = run_cmab(settings, StopAt("loss curve", int(result.rounds[10])))
    assert early.runs == ()
    assert np.isnan(early.gaps[11:]).all()
    assert not np.isnan(early.gaps[:11]).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": 9}, "tasks are 9 of 8 workers: expected no more than there are"),
        ({"means_s": (1.0, 2.0)}, "means are 2 for 8 workers: expected one for each"),
        ({"means_s": (1.0,) * 7 + (-1.0,)}, "mean of worker 8 is -1"),
        ({"policies": ("cmab-k",)}, r"policy is 'cmab-k': preset cmab has .*did you mean cmab-kl"),
        ({"policies": ("random", "random")}, "expected each once"),
        ({"rounds": 0}, "rounds is 0: expected at least 1"),
    ],
)
def test_bad_settings_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        CmabSettings(**{"workers": 8, "tasks": 4, **changes})  # type: ignore[arg-type]
