"""The presets give the paper's numbers, whatever is changed takes effect, and what is computed is kept."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from paceline.coordination.effects import ApplyUpdate
from paceline.coordination.events import TaskResult
from paceline.coordination.ids import LeaseId, TaskId, WorkerName
from paceline.errors import UsageError
from paceline.simulation.experiments.document import document
from paceline.simulation.experiments.experiment import Changes, Experiment, Variant, experiment, parse_means
from paceline.simulation.experiments.games import COMPILED_POLICIES, EMPLOYED
from paceline.simulation.experiments.listener import Nobody
from paceline.simulation.experiments.presets import PRESETS, preset
from paceline.simulation.experiments.quadratic import Descent, Quadratic, first_below
from paceline.simulation.experiments.results import checkpoints
from paceline.simulation.experiments.running import run
from paceline.simulation.model import Applied, Update

KEYS = {
    "policy", "workers", "tasks", "rounds", "mean_round_s", "mean_round_work_s", "runtime_ratio", "work_ratio",
    "average_regret", "tasks_per_worker", "seconds",
}  # fmt: skip


class StopsAfter:
    """A listener that has had enough after so many calls."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def went_on(self, policy: str, rounds: int) -> None:
        self.left -= 1

    def stopped(self) -> bool:
        return self.left <= 0


def made(name: str, **changes: Any) -> Experiment:
    return experiment(preset(name), Changes(**changes))


def simulated(name: str, **changes: Any) -> dict[str, dict[str, Any]]:
    asked = made(name, **changes)
    return {row["policy"]: row for row in document(asked, run(asked, Nobody()))["policies"]}


# Means per round of the baselines, "time / work" (specs of the ATA paper; ours agree with them to 0.1 %).
BASELINES = [
    ("ata-sqrt", 17, {"greedy": (243.7, 17 * 243.7), "fixed": (425.0, 3290.0), "uniform": (580.0, 3813.0)}),
    ("ata-sqrt", 51, {"greedy": (195.7, 51 * 195.7), "fixed": (425.0, 3290.0), "uniform": (756.0, 6440.0)}),
    ("ata-sqrt", 459, {"greedy": (195.7, 459 * 195.7), "fixed": (425.0, 3290.0), "uniform": (2249.0, 19083.0)}),
    ("ata-linear", 17, {"greedy": (493.4, 17 * 493.4), "fixed": (780.5, 4002.0), "uniform": (2146.0, 12006.0)}),
    ("ata-linear", 459, {"greedy": (493.4, 459 * 493.4), "fixed": (780.5, 4002.0), "uniform": (42380.0, 306800.0)}),
]


@pytest.mark.parametrize(("name", "workers", "expected"), BASELINES, ids=[f"{row[0]}-{row[1]}" for row in BASELINES])
def test_baselines_have_the_papers_means(name: str, workers: int, expected: dict[str, tuple[float, float]]) -> None:
    rows = simulated(name, workers=workers, rounds=60_000, policies=tuple(expected), seed=1)
    for policy, (round_s, work_s) in expected.items():
        assert rows[policy]["mean_round_s"] == pytest.approx(round_s, rel=0.005), policy
        assert rows[policy]["mean_round_work_s"] == pytest.approx(work_s, rel=0.005), policy


# Tables 1 and 2 of the ATA paper: "worker-time ratio, runtime ratio", and the average proxy regrets that go with them.
# n = 459 takes half a minute: docs/reproduction.md has it.
TABLES = [
    ("ata-sqrt", 17, {"ata": (1.30, 1.73), "ata-empirical": (1.26, 1.75), "fixed": (1.26, 1.74)}, (9.7, 1.1)),
    ("ata-sqrt", 51, {"ata": (2.91, 2.43), "ata-empirical": (2.69, 2.45), "fixed": (3.03, 2.17)}, (84.7, 73.3)),
    ("ata-linear", 17, {"ata": (2.32, 1.71), "ata-empirical": (1.91, 1.71), "fixed": (2.1, 1.58)}, (176.0, 75.0)),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "workers", "ratios", "regrets"), TABLES, ids=[f"{row[0]}-{row[1]}" for row in TABLES])
def test_three_million_rounds_give_the_papers_tables(
    name: str, workers: int, ratios: dict[str, tuple[float, float]], regrets: tuple[float, float]
) -> None:
    rows = simulated(name, workers=workers, policies=tuple(ratios))
    for policy, (work, runtime) in ratios.items():
        assert rows[policy]["work_ratio"] == pytest.approx(work, rel=0.01)
        assert rows[policy]["runtime_ratio"] == pytest.approx(runtime, rel=0.01)
    for policy, regret in zip(("ata", "ata-empirical"), regrets, strict=True):
        assert rows[policy]["average_regret"] == pytest.approx(regret, rel=0.02)
    # All make the same updates: their loss is the paper's target at its number of rounds.
    assert rows["ata"]["target_round"] == pytest.approx(3_000_000, rel=0.02)


def test_presets_are_the_papers() -> None:
    sqrt, linear = made("ata-sqrt", workers=51), made("ata-linear", workers=51)
    assert sqrt.laws.means_s[8] == pytest.approx(174.0)
    assert linear.laws.means_s[8] == pytest.approx(522.0)
    assert sqrt.setting(0).alpha_s == pytest.approx(4 * 29 * math.sqrt(51))
    assert linear.setting(0).alpha_s == pytest.approx(4 * 29 * 51)
    five = made("ata-distributions")
    assert five.laws.means_s.tolist() == [58.0] * 5 + [348.0] * 5 + [638.0] * 5
    assert sorted(set(five.laws.kinds[:5].tolist())) == sorted(five.laws.kinds[:5].tolist())
    regret = made("ata-regret")
    assert (regret.laws.workers, regret.tasks, regret.rounds, len(regret.seeds)) == (20, 5, 4_000_000, 5)
    assert regret.laws.means_s.tolist() == [2.0 * i for i in range(1, 21)]
    assert {one.tasks for one in PRESETS.values() if one.name != "ata-regret"} == {23}
    assert made("ata-prior", policies=("ata",)).variants[0].prior == 0


def test_rows_have_the_promised_keys_and_are_json() -> None:
    rows = simulated("ata-sqrt", rounds=200, policies=("ata", "greedy", "k-sync"), tasks=5)
    assert set(rows["ata"]) >= KEYS
    assert json.loads(json.dumps(rows)) == rows
    assert rows["greedy"]["runtime_ratio"] == rows["greedy"]["work_ratio"] == 1.0
    assert rows["greedy"]["average_regret"] is None
    assert sum(rows["ata"]["tasks_per_worker"]) == 1000
    assert rows["k-sync"]["rounds"] == 200


def test_ratios_are_to_greedy_even_where_it_is_not_listed() -> None:
    alone = simulated("ata-sqrt", rounds=500, policies=("fixed",))
    both = simulated("ata-sqrt", rounds=500, policies=("fixed", "greedy"))
    assert list(alone) == ["fixed"]
    assert alone["fixed"]["work_ratio"] == both["fixed"]["work_ratio"]
    quotient = both["greedy"]["mean_round_work_s"] / both["fixed"]["mean_round_work_s"]
    assert alone["fixed"]["work_ratio"] == pytest.approx(quotient)


@pytest.mark.parametrize("policy", ["greedy", "uniform", "ata", *EMPLOYED])
def test_the_coordinator_and_the_compiled_path_agree_on_the_means(policy: str) -> None:
    changes = {"policies": (policy,), "tasks": 5, "workers": 6, "law": "gamma:2", "constants": "0.5"}
    fast = simulated("ata-sqrt", rounds=40_000, **changes)[policy]
    real = simulated("ata-sqrt", rounds=600, coordinator=True, **changes)[policy]
    assert policy in COMPILED_POLICIES
    # The learning ones are a little ahead after more rounds; six standard deviations of 600 rounds are 8 %.
    assert real["mean_round_s"] == pytest.approx(fast["mean_round_s"], rel=0.08)
    assert real["mean_round_work_s"] == pytest.approx(fast["mean_round_work_s"], rel=0.08)
    assert (real["average_regret"] is None) == (fast["average_regret"] is None)


@pytest.mark.parametrize("coordinator", [False, True])
def test_number_of_employed_workers_grows_at_the_switching_rounds(coordinator: bool) -> None:
    changes = {"policies": ("cmab-kl",), "tasks": 4, "workers": 6, "rounds": 300, "coordinator": coordinator}
    row = simulated("ata-sqrt", k_start=1, k_step=2, switch_at="100,200", **changes)["cmab-kl"]
    assert sum(row["tasks_per_worker"]) == 100 * (1 + 3 + 4)


def test_staleness_bound_reaches_the_policies() -> None:
    changes = {"policies": ("asgd",), "workers": 6, "rounds": 200}
    free, bound = (simulated("ata-sqrt", staleness=staleness, **changes)["asgd"] for staleness in (None, 1))
    assert bound["mean_round_s"] > 1.5 * free["mean_round_s"]


def test_repetitions_give_means_and_deviations() -> None:
    single = [simulated("ata-sqrt", rounds=300, policies=("uniform",), seed=seed)["uniform"] for seed in (4, 5, 6)]
    row = simulated("ata-sqrt", rounds=300, policies=("uniform",), seed=4, repeats=3)["uniform"]
    for key in ("mean_round_s", "work_ratio", "average_regret"):
        values = [one[key] for one in single]
        assert row[key] == pytest.approx(np.mean(values))
        assert row["sd"][key] == pytest.approx(np.std(values, ddof=1))


def test_same_seed_same_numbers() -> None:
    rows = [simulated("ata-sqrt", rounds=400, policies=("ata",), seed=seed)["ata"] for seed in (3, 3, 4)]
    for row in rows:
        del row["seconds"]
    assert rows[0] == rows[1] != rows[2]


def test_prior_knowledge_is_learned_before_the_clock_starts() -> None:
    asked = made("ata-linear", rounds=2000, policies=("ata", "fixed"), priors=(0, 20_000), constants="paper")
    assert asked.variants == (Variant("ata", 0), Variant("ata", 20_000), Variant("fixed", 0))
    outcome = run(asked, Nobody())
    results = outcome.repetitions[0].results
    knowing, unknowing = results[Variant("ata", 20_000)], results[Variant("ata", 0)]
    assert knowing.rounds == unknowing.rounds == 2000
    assert sum(knowing.tasks_per_worker) == 2000 * 23
    assert knowing.mean_round_s < 0.9 * unknowing.mean_round_s
    # The first 20,000 rounds are those of the run that began with the clock: the sums go on where they left off.
    longer = made("ata-linear", rounds=22_000, policies=("ata",), constants="paper")
    at = run(longer, Nobody()).repetitions[0].results[Variant("ata")].trajectory
    before = np.interp(20_000, at.rounds, at.time_s)
    assert knowing.mean_round_s * 2000 == pytest.approx(at.time_s[-1] - before, rel=0.01)


def test_what_was_computed_before_an_interrupt_is_kept() -> None:
    asked = made("ata-sqrt", rounds=1000, policies=("uniform", "ata"), repeats=2)
    whole = document(asked, run(asked, Nobody()))
    assert not whole["interrupted"]
    for calls in (1, 200, 2500, 4000, 5900):
        outcome = run(asked, StopsAfter(calls))
        part = document(asked, outcome)
        assert part["interrupted"]
        assert 0 < len(outcome.repetitions) <= 2
        for row in part["policies"]:
            assert row["rounds"] <= 1000
            assert row["mean_round_s"] > 0
    # In the second repetition of uniform: one whole result is worth more than one and a half.
    uniform = document(asked, run(asked, StopsAfter(4500)))["policies"][0]
    assert uniform["rounds"] == 1000
    assert (
        uniform["mean_round_s"] == simulated("ata-sqrt", rounds=1000, policies=("uniform",))["uniform"]["mean_round_s"]
    )


def test_checkpoints_are_increasing_and_end_with_the_last_round() -> None:
    for rounds in (1, 2, 7, 1000, 12_345, 3_000_000):
        at = checkpoints(rounds)
        assert at[0] == 1
        assert at[-1] == rounds
        assert np.all(np.diff(at) > 0)
        assert len(at) <= 2000


def test_the_quadratics_losses_have_the_law_of_sgd() -> None:
    """The shortcut in the eigenbasis against minibatch SGD itself, step by step with the matrix; means of 400 runs."""
    d, tasks, at = 6, 2, np.array([1, 5, 40])
    problem = Quadratic(tasks=tasks, dimension=d, noise=0.3)
    matrix = (2 * np.eye(d) - np.eye(d, k=1) - np.eye(d, k=-1)) / 4
    b = np.zeros(d)
    b[0] = -0.25
    best = np.linalg.solve(matrix, b)
    rng = np.random.default_rng(0)
    gaps = np.zeros((400, 3))
    for trial in range(400):
        x = np.zeros(d)
        for step in range(1, 41):
            noise = rng.standard_normal((tasks, d)).mean(axis=0) * 0.3 / math.sqrt(d)
            x -= problem.step * (matrix @ x - b + noise)
            gaps[trial, at == step] = 0.5 * (x - best) @ matrix @ (x - best)
    ours = np.array([problem.losses(at, seed) for seed in range(400)])
    error = np.sqrt(ours.var(axis=0) + gaps.var(axis=0)) / 20
    assert np.all(np.abs(ours.mean(axis=0) - gaps.mean(axis=0)) < 5 * error)
    assert ours.std(axis=0) == pytest.approx(gaps.std(axis=0), rel=0.25)


def applied(version: int, results: int, mark: bool = False) -> Update:
    """Make an update of so many contributions of one task each."""
    order = ApplyUpdate(
        version=version, samples=results, divisor=results, loss=0.0, tasks=results, scalars=(), mark=mark
    )
    one = TaskResult(task=TaskId(0), seconds=1.0, loss_sum=0.0, samples=1)
    every = tuple(
        Applied(lease=LeaseId(i), worker=WorkerName(f"w{i}"), version=version - 1, results=(one,), weight=1.0)
        for i in range(results)
    )
    return Update(version, 0.0, order, every)


def test_descents_scalars_are_those_of_its_gradients() -> None:
    problem = Quadratic(tasks=1, dimension=200, noise=0.5)
    descent = Descent(problem, seed=1)
    curvature, error = problem.start()
    first = descent.scalars(applied(1, 50, mark=True))
    gradient = curvature * error
    # One result's noise has the expected square 0.25; the mean of 50 a fiftieth of it.
    assert first["variance"] == pytest.approx(0.25, rel=0.1)
    assert first["squared-norm"] == pytest.approx(gradient @ gradient + 0.25 / 50, rel=0.1)
    assert first["inner-product"] == 0.0
    assert first["distance"] == pytest.approx(problem.step**2 * first["squared-norm"])
    assert descent.scalars(applied(2, 1))["variance"] == 0.0


def test_policies_that_look_at_gradients_see_some() -> None:
    """The quadratic's noise is small beside its first gradients: few results do, and Pflug's test stays quiet."""
    rows = simulated("ata-sqrt", policies=("backup", "adaptive-k-sync"), workers=6, tasks=6, rounds=200)
    assert sum(rows["backup"]["tasks_per_worker"]) < 0.5 * 6 * 200
    assert sum(rows["adaptive-k-sync"]["tasks_per_worker"]) == 200


def test_the_start_gap_is_an_eighth() -> None:
    """f(0) - min f = d / (8 (d + 1)): nothing is lost in the change of basis."""
    still = Quadratic(tasks=23, step=1e-12, noise=0.0).losses(np.array([1]), 0)
    assert still[0] == pytest.approx(1729 / 1730 / 8)


def test_the_target_is_found_between_two_points() -> None:
    rounds, losses = np.array([1, 10, 20]), np.array([1.0, 1e-2, 1e-4])
    assert first_below(1e-3, rounds, losses) == pytest.approx(15.0)
    assert first_below(1.0, rounds, losses) == 1.0
    assert first_below(1e-5, rounds, losses) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"policies": ("greddy",)}, "did you mean greedy?"),
        ({"policies": ("ata", "ata")}, "names ata twice"),
        ({"policies": ("k-sync",)}, "employs 23 workers a round, but there are 17"),
        ({"means_s": (1.0, 2.0), "workers": 3}, "2 numbers for 3 workers"),
        ({"means_s": (1.0, 0.0)}, "mean of worker 2 is 0"),
        ({"law": "lognormal"}, "expected lognormal:SIGMA"),
        ({"constants": "none"}, "constant is 'none'"),
        ({"priors": (5,), "coordinator": True}, "--prior is 5 for ata"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_simulated(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        made("ata-sqrt", **changes)
    assert words in str(caught.value)


def test_means_are_numbers() -> None:
    assert parse_means("1, 2.5,4") == (1.0, 2.5, 4.0)
    with pytest.raises(UsageError, match="'x' for a number"):
        parse_means("1,x")


def test_an_unknown_preset_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean ata-linear"):
        preset("ata-liner")
