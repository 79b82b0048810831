"""Indices of the combinatorial bandit for exponential times: optimistic guesses of each worker's mean, and the choice.

A lower index is better. A worker without a task has -inf, so everybody is tried once. Statistics are those of the
rounds before the one being planned; j is that round's 1-based number.

Warning: the constants of both indices are ours (derived, and checked by simulation); the source gives the rules.
"""

import math
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from paceline.errors import UsageError

Exploration: TypeAlias = Literal["practical", "theorem"]

_NEWTON_STEPS = 3
"""Relative error after 1, 2, 3 steps: 1.5e-3, 5e-7, 1e-13 for e >= 1e-4; below, rounding leaves 3e-11 at worst."""


def lcb_indices(
    tasks_done: npt.NDArray[np.int64], busy_s: npt.NDArray[np.float64], number: int, mean_max_s: float
) -> npt.NDArray[np.float64]:
    """Return the lower confidence bounds of exponential means: mean - M (sqrt(4 f / T) + 2 f / T), f = 2 ln j.

    The mean of T exponential times has a sub-gamma right tail with variance factor M^2 / T and scale M / T, hence
    P(mean - true > sqrt(2 v x) + c x) <= e^-x; here x = 2 f, so each tail has at most j^-4.

    Args:
        tasks_done: T, shape (n,).
        busy_s: seconds spent on them, shape (n,).
        number: j, of the round being planned, from 1.
        mean_max_s: M, a bound on every worker's mean.
    Returns:
        seconds, shape (n,), -inf where T = 0; may be negative.
    Source: Egger et al. (2025), section 4. Differs: the source's constants are not reproduced here; f and the radius
        are derived from the tail bound, and agree with the constant 48 of the regret bound.
    """
    f = 2.0 * math.log(number)
    counted = np.maximum(tasks_done, 1)
    theta_s = mean_max_s * (np.sqrt(4.0 * f / counted) + 2.0 * f / counted)
    return np.where(tasks_done > 0, busy_s / counted - theta_s, -np.inf)


def kl_indices(
    tasks_done: npt.NDArray[np.int64], busy_s: npt.NDArray[np.float64], exploration: float
) -> npt.NDArray[np.float64]:
    """Return the smallest q > 0 with T D(mean, q) <= f, D(p, q) = p/q - ln(p/q) - 1 between exponential laws.

    With e = f / T the answer is mean / u, u > 1 the root of u - ln u = 1 + e. Newton from the upper end of the bracket
    1 + sqrt(2 e) + 2 e / 3 < u < 1 + sqrt(2 e) + e goes down to the root and never past it.

    Args:
        tasks_done: T, shape (n,).
        busy_s: seconds spent on them, shape (n,).
        exploration: f, above 0, see `exploration_term`.
    Returns:
        seconds, shape (n,), above 0; -inf where T = 0.
    Source: Egger et al. (2025), KL policy; bracket: Chatzigeorgiou (2013). Differs: the source runs Newton in q from
        below; this form needs no safeguard.
    """
    seen = tasks_done > 0
    counted = np.maximum(tasks_done, 1)
    return np.where(seen, busy_s / counted / kl_factor(np.where(seen, exploration / counted, 1.0)), -np.inf)


def kl_factor(excess: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Solve u - ln u = 1 + e for u > 1, given e > 0, any shape."""
    u = 1.0 + np.sqrt(2.0 * excess) + excess
    for _ in range(_NEWTON_STEPS):
        u = u * (excess + np.log(u)) / (u - 1.0)
    return u


def exploration_term(
    number: int | npt.NDArray[np.int64], exploration: Exploration = "practical"
) -> npt.NDArray[np.float64]:
    """Return f of the KL index: ln j, or ln j + 3 ln ln j as the regret theorem wants; j counts from 3.

    Args:
        number: j, of the round being planned, one or many.
    Source: Garivier, Cappe (2011); plain ln j did better in all our runs, as in theirs.
    """
    log_j = np.log(np.maximum(np.asarray(number, dtype=np.float64), 3.0))
    result: npt.NDArray[np.float64] = log_j if exploration == "practical" else log_j + 3.0 * np.log(log_j)
    return result


def smallest(indices: npt.NDArray[np.float64], count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Choose the `count` workers of smallest index, ascending by number; ties at the last place fall at random.

    Args:
        indices: shape (n,), no NaN.
        count: 1 to n.
        rng: drawn from `random()` once for each place that equals compete for, else not at all.
    Raises:
        UsageError: a count outside 1 to n.
    Source: Egger et al. (2025), Alg. 1. Differs: the source does not say how ties are broken.
    """
    n = indices.size
    if not 1 <= count <= n:
        raise UsageError(f"workers to employ is {count} of {n}: expected 1 to {n}")
    last = np.partition(indices, count - 1)[count - 1]
    chosen = np.flatnonzero(indices < last)
    tied = np.flatnonzero(indices == last)
    places = count - chosen.size
    if places < tied.size:
        for place in range(places):
            other = place + int(rng.random() * (tied.size - place))
            tied[[place, other]] = tied[[other, place]]
    return np.sort(np.concatenate((chosen, tied[:places])))
