"""One test per claim of Maranjyan et al. (2025), "ATA: Adaptive Task Allocation"; numbers are the paper's."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.allocation import allocate
from paceline.simulation.compiled.choices import by_score, new_choice
from paceline.simulation.compiled.kernels import BAD, REGRET, TIME, WORK
from paceline.simulation.compiled.run import CompiledRun
from paceline.simulation.setting import Setting
from paceline.simulation.shapes import parse_shape, scaled


def setting(
    n: int, tasks: int, law: str = "shifted-exp", constants: str = "paper", power: float = 0.5, seed: int = 0
) -> Setting:
    means_s = [58.0 * i**power for i in range(1, n + 1)]
    return Setting(laws=scaled(parse_shape(law), means_s), tasks=tasks, constants=constants, seed=seed)


def played(policy: str, case: Setting, rounds: int) -> CompiledRun:
    run = CompiledRun(policy, case)
    run.advance(rounds)
    return run


def sums_at(policy: str, case: Setting, rounds: list[int]) -> npt.NDArray[np.float64]:
    """Give the sums after each of some numbers of rounds, shape (m, 4)."""
    run = CompiledRun(policy, case)
    rows = []
    for until in rounds:
        run.advance(until - run.round)
        rows.append(run.sums.copy())
    return np.array(rows)


def norm_of_centred_exponential() -> float:
    """Find ||Y - 1||_psi1 for Y ~ Exp(1): the least c with E exp(|Y - 1| / c) <= 2, by bisection on its closed form."""
    low, high = 1.01, 4.0
    for _ in range(60):
        c = (low + high) / 2
        below = math.exp(1 / c) * (1 - math.exp(-1 - 1 / c)) / (1 + 1 / c)
        above = math.exp(-1) / (1 - 1 / c)
        low, high = (low, c) if below + above <= 2 else (c, high)
    return high


@pytest.mark.parametrize("policy", ["fixed", "uniform", "ata-empirical"])
@pytest.mark.parametrize(("n", "tasks"), [(3, 2), (17, 23), (51, 23), (5, 200)])
@pytest.mark.parametrize(("law", "share"), [("shifted-exp", 0.5), ("exp", 1.0)])
def test_theorem_4_2_expected_time_lies_between_the_proxy_loss_and_its_multiple(
    policy: str, n: int, tasks: int, law: str, share: float
) -> None:
    """l(a) <= E C(a) <= (1 + 4 eta ln B) l(a), eta = max ||X_i - mu_i|| / mu_i; so too for means over allocations."""
    run = played(policy, setting(n, tasks, law), 5_000)
    loss = run.best_s + run.sums[REGRET] / run.round
    time_s = run.sums[TIME] / run.round
    eta = share * norm_of_centred_exponential()
    assert loss * 0.99 < time_s < (1 + 4 * eta * math.log(tasks)) * loss * 1.01
    assert time_s > 1.005 * loss  # The left side is no equality where times are random.


def test_theorem_4_2_is_an_equality_for_constant_times_and_for_one_task() -> None:
    constant = played("uniform", setting(7, 23, "const"), 100)
    assert constant.sums[TIME] == pytest.approx(constant.best_s * 100 + constant.sums[REGRET])
    single = played("uniform", setting(7, 1, "exp"), 200_000)
    assert single.sums[TIME] == pytest.approx(single.best_s * 200_000 + single.sums[REGRET], rel=0.01)


POSITIVE = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=30)


@given(scores=POSITIVE, tasks=st.integers(1, 100))
def test_lemma_d_1_holds_for_every_allocation_from_positive_scores(scores: list[float], tasks: int) -> None:
    """a_j s_j <= (a_i + 1) s_i for all i and j; so with one or two tasks more any worker is the slowest (section 5)."""
    s = np.array(scores)
    a = allocate(s, tasks, np.random.default_rng(0))
    worst = (a * s).max()
    assert worst <= ((a + 1) * s).min()
    assert np.all((a + 2) * s > worst)  # k_i is 1 or 2.


@given(rounds=st.lists(POSITIVE.filter(lambda row: len(row) > 3), min_size=1, max_size=4), tasks=st.integers(1, 100))
def test_lemma_d_1_the_compiled_allocation_is_that_one_whatever_came_before(
    rounds: list[list[float]], tasks: int
) -> None:
    n = min(len(row) for row in rounds)
    choice = new_choice(n, tasks)
    for row in rounds:
        scores = np.array(row[:n])
        m = by_score(scores, tasks, choice)
        made = np.zeros(n, dtype=np.int64)
        made[choice.who[:m]] = choice.counts[:m]
        assert made.tolist() == allocate(scores, tasks, np.random.default_rng(0)).tolist()


def bound(case: Setting, rounds: int, policy: str) -> float:
    """Give the right side of theorem 6.1 (ATA) or 6.3 (ATA-Empirical), with the constants of their proofs."""
    means_s, tasks, n = case.laws.means_s, case.tasks, case.laws.workers
    best = allocate(means_s, tasks, np.random.default_rng(0))
    least = (best * means_s).max()
    k = np.where((best + 1) * means_s > least, 1, 2)
    gap = (best + k) * means_s - least
    spare = tasks * means_s - least
    norm = case.alpha_s if policy == "ata" else means_s  # eta = 1
    constant = 24 if policy == "ata" else 185
    return float(
        2 * n * spare.max() + constant * math.log(2 * rounds**2) * (norm**2 * (best + k) * spare / gap**2).sum()
    )


@pytest.mark.parametrize("policy", ["ata", "ata-empirical"])
def test_theorems_6_1_and_6_3_regret_stays_below_the_bound(policy: str) -> None:
    for case in (setting(5, 5), setting(17, 23), setting(8, 1, "exp", power=1.0)):
        for rounds, sums in zip((100, 10_000), sums_at(policy, case, [100, 10_000]), strict=True):
            assert 0 < sums[REGRET] <= bound(case, rounds, policy)


@pytest.mark.parametrize(("policy", "constants"), [("ata", "0.5"), ("ata-empirical", "2")])
def test_theorem_6_1_bad_rounds_grow_like_the_logarithm(policy: str, constants: str) -> None:
    """A proof's step: rounds of more than the least proxy loss. Ten times the rounds add about the same number."""
    per_seed = [
        sums_at(policy, setting(4, 4, "exp", constants, power=1.0, seed=seed), [10**4, 10**5, 10**6])[:, BAD]
        for seed in range(3)
    ]
    bad = np.mean(per_seed, axis=0)
    first, second = np.diff(bad)
    assert 0 < second < 2.5 * first
    assert bad[-1] < 0.02 * 10**6


@pytest.mark.parametrize("policy", ["ata", "ata-empirical"])
def test_average_regret_goes_to_zero(policy: str) -> None:
    rounds = [1_000, 10_000, 100_000]
    regrets = sums_at(policy, setting(17, 23), rounds)[:, REGRET] / rounds
    assert regrets[0] > 3 * regrets[1] > 9 * regrets[2]
    uniform = sums_at("uniform", setting(17, 23), rounds)[:, REGRET] / rounds
    assert uniform[2] == pytest.approx(uniform[0], rel=0.05)  # Who does not learn regrets for ever.


@pytest.mark.parametrize("policy", ["ata", "ata-empirical"])
def test_one_task_a_round_is_the_classical_bandit(policy: str) -> None:
    """B = 1: the arm of the smallest lower bound is pulled, and regret is O(sum_i ln K / Delta_i)."""
    case = setting(4, 1, "exp", "0.5" if policy == "ata" else "2", power=1.0)
    run = CompiledRun(policy, case)
    for _ in range(300):
        run.advance(1)
        assert sorted(run.allocation.tolist()) == [0, 0, 0, 1]
    regrets = sums_at(policy, case, [10**4, 10**5, 10**6])[:, REGRET]
    first, second = np.diff(regrets)
    assert 0 < second < 2.5 * first
    pulls = played(policy, case, 10**6).tasks_done
    assert pulls[0] > 0.98 * 10**6
    assert pulls.tolist() == sorted(pulls.tolist(), reverse=True)


@pytest.mark.parametrize("law", ["shifted-exp", "lognormal:1", "const"])
def test_greedy_pays_everybody_for_the_whole_round(law: str) -> None:
    """Section 4 of the paper's accounting: W = n C, and the fastest possible round."""
    for n, tasks in ((3, 23), (51, 23), (100, 1)):
        greedy = played("greedy", setting(n, tasks, law), 2_000)
        assert greedy.sums[WORK] == pytest.approx(n * greedy.sums[TIME])
        assert greedy.tasks_done.sum() == 2_000 * tasks
        assert greedy.sums[TIME] <= played("fixed", setting(n, tasks, law), 2_000).sums[TIME] * 1.001


def test_ata_costs_less_worker_time_than_the_optimum_and_more_run_time() -> None:
    """Linear means, n = 17: while its bounds are low ATA gives more to the fastest workers than the optimum does."""
    case = setting(17, 23, constants="as-run", power=1.0)
    ata, optimum = played("ata", case, 500_000).sums, played("fixed", case, 500_000).sums
    assert ata[WORK] < 0.95 * optimum[WORK]
    assert ata[TIME] > optimum[TIME]


@pytest.mark.parametrize("noise", [0.0, 1e-7, 1e-3, 1.0])
def test_the_compiled_allocation_is_exact_where_scores_move_slowly(noise: float) -> None:
    """As in a long run: most scores are just above the level, and the shortcuts of `by_score` are taken or missed."""
    rng, choice = np.random.default_rng(0), new_choice(200, 23)
    scores = np.concatenate([58.0 * np.sqrt(np.arange(1, 18)), 234.3 + 1e-3 * rng.random(183)])
    for _ in range(1500):
        scores = scores * np.exp(noise * rng.standard_normal(200))
        m = by_score(scores, 23, choice)
        made = np.zeros(200, dtype=np.int64)
        made[choice.who[:m]] = choice.counts[:m]
        assert made.tolist() == allocate(scores, 23, rng).tolist()
