"""Moments of maxima and order statistics of exponential times: quadrature, recursion, closed forms."""

import math
from itertools import combinations

import numpy as np
import pytest

from paceline.allocation import (
    max_moments,
    max_moments_exact,
    order_statistic_moments,
    quadrature,
)
from paceline.errors import UsageError

NINE = np.arange(1, 10) / 10.0


def harmonic(n: int, power: int = 1) -> float:
    return math.fsum(1.0 / i**power for i in range(1, n + 1))


@pytest.mark.parametrize("r", [1, 2, 20, 60, 500])
def test_equal_workers_have_the_closed_form(r: int) -> None:
    """Proposition 1: H_r / rate, and Proposition 2; at 60 the alternating sum has lost every digit."""
    moments = max_moments(np.full(r, 0.25))
    assert moments.mean_s == pytest.approx(0.25 * harmonic(r), rel=2e-12)
    assert moments.variance_s2 == pytest.approx(0.0625 * harmonic(r, 2), rel=1e-11)


@pytest.mark.parametrize("seed", range(5))
def test_quadrature_is_the_exact_recursion(seed: int) -> None:
    means_s = np.random.default_rng(seed).choice(NINE, size=20)
    exact, ours = max_moments_exact(means_s), max_moments(means_s)
    assert ours.mean_s == pytest.approx(exact.mean_s, rel=2e-12)
    assert ours.variance_s2 == pytest.approx(exact.variance_s2, rel=2e-11)


@pytest.mark.parametrize("ratio", [1e3, 1e6])
def test_scales_far_apart_do_not_hurt(ratio: float) -> None:
    means_s = np.array([1.0, 1.0, ratio, 2.0 * ratio, 3.0])
    assert max_moments(means_s).mean_s == pytest.approx(max_moments_exact(means_s).mean_s, rel=2e-12)


def test_recursion_is_inclusion_and_exclusion() -> None:
    """Propositions 1 and 2 as printed, for few workers."""
    means_s = np.array([0.3, 0.5, 0.5, 1.7, 4.0])
    mean_s = second = 0.0
    for size in range(1, 6):
        for subset in combinations(1.0 / means_s, size):
            mean_s += (-1) ** (size - 1) / sum(subset)
            second += (-1) ** (size - 1) * 2.0 / sum(subset) ** 2
    exact = max_moments_exact(means_s)
    assert exact.mean_s == pytest.approx(mean_s, rel=1e-13)
    assert exact.variance_s2 == pytest.approx(second - mean_s**2, rel=1e-12)


def test_one_set_of_nodes_serves_every_subset() -> None:
    rng = np.random.default_rng(0)
    means_s = rng.choice(NINE, size=50)
    nodes = quadrature(means_s)
    for r in (1, 5, 20):
        members = np.argsort(means_s)[:r]
        assert nodes.max_mean_s(members) == pytest.approx(max_moments_exact(means_s[members]).mean_s, rel=2e-12)


@pytest.mark.parametrize(("n", "k"), [(1, 1), (50, 1), (50, 10), (50, 50), (500, 1), (500, 250)])
def test_order_statistics_of_equal_workers(n: int, k: int) -> None:
    """(H_n - H_(n-k)) / rate, and the sum of 1/i^2 from n-k+1 to n for the variance."""
    moments = order_statistic_moments(np.full(n, 2.0), k)
    assert moments.mean_s == pytest.approx(2.0 * (harmonic(n) - harmonic(n - k)), rel=1e-11)
    assert moments.variance_s2 == pytest.approx(4.0 * (harmonic(n, 2) - harmonic(n - k, 2)), rel=1e-10)


def test_order_statistics_of_unequal_workers() -> None:
    means_s = np.array([0.2, 0.2, 0.7, 1.5])
    first = order_statistic_moments(means_s, 1)
    rate = float((1.0 / means_s).sum())
    assert (first.mean_s, first.variance_s2) == pytest.approx((1 / rate, 1 / rate**2))
    assert order_statistic_moments(means_s, 4).mean_s == pytest.approx(max_moments_exact(means_s).mean_s, rel=1e-12)
    # The sum of all order statistics is the sum of all times.
    total = sum(order_statistic_moments(means_s, k).mean_s for k in range(1, 5))
    assert total == pytest.approx(means_s.sum(), rel=1e-12)
    times = np.sort(np.random.default_rng(0).exponential(means_s, size=(200_000, 4)), axis=1)
    assert order_statistic_moments(means_s, 2).mean_s == pytest.approx(times[:, 1].mean(), rel=0.01)


def test_bad_means_are_named() -> None:
    with pytest.raises(UsageError, match=r"mean of worker 1 is 0.0: expected seconds above 0"):
        max_moments(np.array([1.0, 0.0]))
    with pytest.raises(UsageError, match="at least 1 worker"):
        max_moments(np.array([]))
    with pytest.raises(UsageError, match="rank is 3 of 2 workers"):
        order_statistic_moments(np.array([1.0, 2.0]), 3)
    with pytest.raises(UsageError, match="expected at most 2000000"):
        max_moments_exact(np.arange(1.0, 31.0))
