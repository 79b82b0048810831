"""Indices of the combinatorial bandit: closed forms, brackets, tails; the choice of the smallest."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.allocation import exploration_term, kl_factor, kl_indices, lcb_indices, smallest
from paceline.errors import UsageError

DONE = np.array([4, 100, 0])
BUSY_S = np.array([2.0, 20.0, 0.0])


def test_lcb_by_hand() -> None:
    # j = 10: f = 2 ln 10 = 4.60517019; T = 4: sqrt(4.60517019) + 2.30258509 = 4.44856...; M = 0.9.
    indices = lcb_indices(DONE, BUSY_S, 10, 0.9)
    assert indices[0] == pytest.approx(0.5 - 0.9 * (2.14596603 + 2.30258509))
    assert indices[1] == pytest.approx(0.2 - 0.9 * (0.42919321 + 0.09210340))
    assert indices[2] == -np.inf


@pytest.mark.parametrize("tasks", [1, 5, 50])
@pytest.mark.parametrize("x", [1.0, 3.0])
def test_lcb_radius_holds_with_the_chance_it_claims(tasks: int, x: float) -> None:
    """Section 4's tails: right one sub-gamma, left one sub-Gaussian, each at most e^-x where f = x / 2."""
    means = np.random.default_rng(tasks).standard_gamma(tasks, size=200_000) / tasks
    radius = math.sqrt(2 * x / tasks) + x / tasks
    noise = 3 * math.sqrt(math.exp(-x) / means.size)
    assert np.mean(means - radius > 1.0) <= math.exp(-x) + noise
    assert np.mean(means + math.sqrt(2 * x / tasks) < 1.0) <= math.exp(-x) + noise
    number = math.exp(x / 4)  # f = 2 ln j = x / 2
    assert float(np.sqrt(4 * 2 * math.log(number) / tasks)) == pytest.approx(math.sqrt(2 * x / tasks))


@given(st.floats(1e-4, 1e5))
def test_kl_factor_solves_its_equation_within_the_bracket(excess: float) -> None:
    """Chatzigeorgiou (2013): 1 + sqrt(2e) + 2e/3 < u < 1 + sqrt(2e) + e."""
    u = float(kl_factor(np.array(excess)))
    assert u - math.log(u) == pytest.approx(1 + excess, rel=1e-12)
    assert 1 + math.sqrt(2 * excess) + 2 * excess / 3 < u < 1 + math.sqrt(2 * excess) + excess


@pytest.mark.parametrize("excess", [1e-9, 1e-7, 1e-5])
def test_kl_factor_has_the_first_order_limit(excess: float) -> None:
    u = float(kl_factor(np.array(excess)))
    root = math.sqrt(2 * excess)
    assert u == pytest.approx(1 + root + 2 * excess / 3 + root**3 / 36, rel=1e-10)


def test_kl_index_is_the_smallest_q_within_the_divergence() -> None:
    f = float(exploration_term(50))
    indices = kl_indices(DONE, BUSY_S, f)
    for q, tasks, mean in zip(indices[:2], (4, 100), (0.5, 0.2), strict=True):
        assert q < mean
        assert tasks * (mean / q - math.log(mean / q) - 1) == pytest.approx(f, rel=1e-10)
    assert indices[2] == -np.inf


def test_kl_index_does_not_know_the_unit() -> None:
    assert kl_indices(DONE, 1000 * BUSY_S, 3.0)[:2] == pytest.approx(1000 * kl_indices(DONE, BUSY_S, 3.0)[:2])


def test_exploration_terms() -> None:
    assert exploration_term(np.array([1, 2, 3, 100])).tolist() == pytest.approx(
        [math.log(3), math.log(3), math.log(3), math.log(100)]
    )
    assert float(exploration_term(100, "theorem")) == pytest.approx(math.log(100) + 3 * math.log(math.log(100)))


def test_smallest_without_ties_draws_nothing() -> None:
    rng = np.random.default_rng(0)
    assert smallest(np.array([3.0, 1.0, 2.0, -np.inf]), 2, rng).tolist() == [1, 3]
    assert smallest(np.array([1.0, 1.0, 2.0]), 2, rng).tolist() == [0, 1]
    assert rng.random() == np.random.default_rng(0).random()


def test_ties_at_the_last_place_fall_evenly() -> None:
    rng = np.random.default_rng(1)
    indices = np.array([5.0, 1.0, 5.0, 5.0, 5.0, 9.0])
    counts = np.zeros(6)
    for _ in range(6000):
        counts[smallest(indices, 3, rng)] += 1
    assert counts[1] == 6000
    assert counts[5] == 0
    assert counts[[0, 2, 3, 4]] == pytest.approx(np.full(4, 3000), rel=0.07)


def test_smallest_refuses_more_than_are_there() -> None:
    with pytest.raises(UsageError, match="workers to employ is 3 of 2: expected 1 to 2"):
        smallest(np.array([1.0, 2.0]), 3, np.random.default_rng(0))
