"""Scores and radius of ATA and ATA-Empirical against values worked out by hand; constants; B = 1."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.allocation import (
    AS_RUN,
    PAPER,
    allocate,
    ata_empirical_radius_s,
    ata_empirical_scores,
    ata_scores,
    constant_for,
    log_term,
)
from paceline.errors import UsageError

# Round 10, L = ln 200 = 5.298317. K = 100: r = 0.05298317, sqrt(r) + r = 0.28316391. K = 4: r = 1.32457934,
# sqrt(r) + r = 2.47548250. Means 0.5 s and 0.25 s.
TASKS_DONE = np.array([100, 4, 0])
BUSY_S = np.array([50.0, 1.0, 0.0])


def test_log_term() -> None:
    assert float(log_term(1)) == pytest.approx(0.69314718)
    assert log_term(np.array([1, 10])).tolist() == pytest.approx([0.69314718, 5.29831737])


def test_ata_scores_by_hand() -> None:
    scores = ata_scores(TASKS_DONE, BUSY_S, 10, alpha_s=0.5, constant=2.0)
    assert scores.tolist() == pytest.approx([0.5 - 2 * 0.5 * 0.28316391, 0.0, 0.0])


def test_ata_empirical_scores_by_hand() -> None:
    scores = ata_empirical_scores(TASKS_DONE, BUSY_S, 10, constant=2.0)
    assert scores.tolist() == pytest.approx([0.5 * (1 - 2 * 0.28316391), 0.0, 0.0])


def test_as_run_constants_explore_much_longer() -> None:
    """K = 10,000: r = 0.000529832, sqrt(r) + r = 0.02354788; times 8e = 0.512083, times 4e = 0.256042."""
    done, busy_s = np.array([100, 10_000]), np.array([50.0, 5000.0])
    by_empirical = ata_empirical_scores(done, busy_s, 10, AS_RUN.ata_empirical)
    assert by_empirical.tolist() == pytest.approx([0.0, 0.5 * (1 - 0.512083)], rel=1e-5)
    by_ata = ata_scores(done, busy_s, 10, alpha_s=0.5, constant=AS_RUN.ata)
    assert by_ata.tolist() == pytest.approx([0.0, 0.5 * (1 - 0.256042)], rel=1e-5)


def test_radius_is_the_distance_from_the_mean_and_unknown_without_a_task() -> None:
    radius_s = ata_empirical_radius_s(TASKS_DONE, BUSY_S, 10, constant=2.0)
    assert radius_s[:2].tolist() == pytest.approx([0.28316391, 0.25 * 2 * 2.47548250])
    assert math.isnan(radius_s[2])


def test_every_score_is_zero_at_the_start() -> None:
    nothing = np.zeros(3, dtype=np.int64)
    assert ata_scores(nothing, np.zeros(3), 1, alpha_s=0.0, constant=2.0).tolist() == [0.0] * 3
    assert ata_empirical_scores(nothing, np.zeros(3), 1, constant=2.0).tolist() == [0.0] * 3


def test_late_joiners_count_their_own_rounds() -> None:
    done, busy_s, rounds = np.array([50, 50]), np.array([5.0, 5.0]), np.array([1000, 10])
    together = ata_empirical_scores(done, busy_s, rounds, 2.0)
    apart = [float(ata_empirical_scores(done, busy_s, int(k), 2.0)[0]) for k in rounds]
    assert together.tolist() == apart
    assert together[1] > together[0]
    assert np.all(np.diff(ata_scores(done, busy_s, rounds, 0.05, 2.0)) > 0)
    assert np.all(np.diff(ata_empirical_radius_s(done, busy_s, rounds, 2.0)) < 0)


@given(
    done=st.integers(1, 10**9), mean_s=st.floats(1e-6, 1e6), rounds=st.integers(1, 10**7), factor=st.floats(0.1, 30.0)
)
def test_scores_never_exceed_the_mean_and_agree_for_alpha_equal_to_it(
    done: int, mean_s: float, rounds: int, factor: float
) -> None:
    tasks_done, busy_s = np.array([done]), np.array([mean_s * done])
    by_empirical = float(ata_empirical_scores(tasks_done, busy_s, rounds, factor)[0])
    by_ata = float(ata_scores(tasks_done, busy_s, rounds, mean_s, factor)[0])
    assert 0.0 <= by_empirical <= busy_s[0] / done
    assert by_ata == pytest.approx(by_empirical, rel=1e-9, abs=1e-9 * mean_s)


def test_presets() -> None:
    assert (PAPER.ata, PAPER.ata_empirical) == (2.0, 2.0)
    assert AS_RUN.ata == pytest.approx(10.87313, abs=1e-5)
    assert AS_RUN.ata_empirical == pytest.approx(21.7463, abs=1e-4)
    assert constant_for("ata", "paper") == 2.0
    assert constant_for("ata", "as-run") == AS_RUN.ata
    assert constant_for("ata-empirical", "paper") == 2.0
    assert constant_for("ata-empirical", "as-run") == AS_RUN.ata_empirical


@pytest.mark.parametrize(("value", "expected"), [("1.5", 1.5), (3, 3.0), (0.25, 0.25), ("1e-3", 0.001)])
def test_a_constant_may_be_a_number(value: str | float, expected: float) -> None:
    assert constant_for("ata-empirical", value) == expected


@pytest.mark.parametrize("value", ["papier", "", "0", -1.0, "nan", "inf", float("nan")])
def test_bad_constants_are_refused(value: str | float) -> None:
    with pytest.raises(UsageError, match=r"confidence constant is .*: expected paper, as-run or a number > 0"):
        constant_for("ata", value)


def test_a_policy_without_a_constant_is_refused() -> None:
    with pytest.raises(UsageError, match="policy 'greedy' has no confidence constant"):
        constant_for("greedy", "paper")


def run_ata_empirical(
    means_s: list[float], tasks: int, rounds: int, seed: int
) -> tuple[list[int], npt.NDArray[np.float64]]:
    """Play ATA-Empirical (preset paper) on constant task times; return tasks done and the cumulative time by round."""
    rng = np.random.default_rng(seed)
    mean_s = np.array(means_s)
    done = np.zeros(mean_s.size, dtype=np.int64)
    round_s = np.zeros(rounds)
    for k in range(1, rounds + 1):
        allocation = allocate(ata_empirical_scores(done, done * mean_s, k, PAPER.ata_empirical), tasks, rng)
        done += allocation
        round_s[k - 1] = (allocation * mean_s).max()
    return done.tolist(), np.cumsum(round_s)


def test_approaches_the_oracle_on_constant_times() -> None:
    """Cumulative time over that of the oracle (130 ms a round): about 1.76 at round 50, 1.24 at round 500.

    The three tasks left over in each of the 8 rounds with zero scores fall at random: over 100 seeds the first figure
    is 1.785 +- 0.030 (1.745 to 1.863), the second 1.240 +- 0.003.
    """
    oracle_s = 0.13 * np.arange(1, 501)
    ratios = []
    for seed in range(10):
        done, cumulative_s = run_ata_empirical([0.01, 0.02, 0.04, 0.08], tasks=23, rounds=500, seed=seed)
        ratios.append((cumulative_s / oracle_s)[[49, 499]])
        assert done == sorted(done, reverse=True)
    assert np.mean(ratios, axis=0).tolist() == [pytest.approx(1.785, abs=0.04), pytest.approx(1.24, abs=0.005)]


def test_one_task_a_round_is_the_classical_bandit() -> None:
    """B = 1: every worker is tried, and the others are chosen O(ln K) times in all."""
    done, _ = run_ata_empirical([3.0, 1.0, 2.0], tasks=1, rounds=4000, seed=0)
    done_early, _ = run_ata_empirical([3.0, 1.0, 2.0], tasks=1, rounds=1000, seed=0)
    assert sum(done) == 4000
    assert min(done) > 0
    others, others_early = done[0] + done[2], done_early[0] + done_early[2]
    assert done[1] > 0.8 * 4000
    # Four times the rounds add ln 4 / ln 1000 = 20 % to a logarithm, 300 % to a constant share.
    assert others < 1.5 * others_early
