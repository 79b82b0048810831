"""The quadratic problem of the ATA paper: a loss curve that all policies share, as each makes B results an update.

f(x) = x'Ax/2 - b'x with A = tridiag(-1, 2, -1) / 4 and b = (-1, 0, ..., 0) / 4 in R^d, by minibatch SGD from x = 0. In
the eigenbasis of A, which are sines, each coordinate of the error is an AR(1) process of its own: its value some
rounds later can be drawn at once, so that a curve costs O(d) per point whatever the rounds between them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from paceline.simulation.model import Update


@dataclass(frozen=True, slots=True, kw_only=True)
class Quadratic:
    """The problem and its SGD.

    Attributes:
        dimension, step: not in the paper; these reach its target at its number of rounds.
        noise: root of the expected squared norm of one gradient's error.
        tasks: gradients averaged for an update.
        target: gap to the optimum at which the paper compares.
    """

    tasks: int
    dimension: int = 1729
    step: float = 0.555
    noise: float = 0.01
    target: float = 1e-5

    def losses(self, rounds: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.float64]:
        """Draw the gap f(x) - min f after each of the rounds.

        Args:
            rounds: strictly increasing, at least 1, shape (m,).
        Returns:
            gaps, shape (m,).
        Source: Maranjyan et al. (2025), section 6.
        """
        rng = np.random.default_rng([seed, 2])
        d = self.dimension
        curvature, error = self.start()
        log_decay = np.log1p(-self.step * curvature)
        variance = (self.step * self.noise) ** 2 / (d * self.tasks) / -np.expm1(2.0 * log_decay)
        gaps = np.empty(len(rounds))
        for place, passed in enumerate(np.diff(rounds, prepend=0).tolist()):
            spread = np.sqrt(variance * -np.expm1(2.0 * passed * log_decay))
            error = np.exp(passed * log_decay) * error + spread * rng.standard_normal(d)
            gaps[place] = 0.5 * float(curvature @ error**2)
        return gaps

    def start(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Give the eigenvalues of A and, in its eigenbasis, the error x - argmin f at x = 0; shape (d,) each."""
        d = self.dimension
        angles = np.arange(1, d + 1) * (np.pi / (d + 1))
        curvature = np.sin(angles / 2.0) ** 2
        # The optimum's coordinates are those of b over the eigenvalues.
        return curvature, np.sqrt(2.0 / (d + 1)) * np.sin(angles) / (4.0 * curvature)


class Descent:
    """SGD on the problem, update by update, for policies that look at gradients; all results count as fresh.

    Args:
        problem: its `tasks` are not looked at: an update says how many it is made of.
    """

    def __init__(self, problem: Quadratic, seed: int) -> None:
        self._step = problem.step
        self._noise = problem.noise / np.sqrt(problem.dimension)
        self._rng = np.random.default_rng([seed, 3])
        self._curvature, self._error = problem.start()
        self._marked = self._error
        self._before = np.zeros_like(self._error)

    def scalars(self, update: Update) -> dict[str, float]:
        """Make the step, and give all that `coordination.plan.SCALARS` names."""
        if update.order.mark:
            self._marked = self._error
        counts = np.array([len(applied.results) for applied in update.contributions])
        noise = self._rng.standard_normal((counts.size, self._error.size)) * self._noise
        each = counts[:, None] * (self._curvature * self._error) + np.sqrt(counts)[:, None] * noise
        mean = each.sum(axis=0) / counts.sum()
        k, squared_norm = counts.size, float(mean @ mean)
        squares = float((each**2).sum()) / counts.mean() ** 2
        inner, self._before = float(mean @ self._before), mean
        self._error = self._error - self._step * mean
        away = self._error - self._marked
        return {
            "inner-product": inner,
            "squared-norm": squared_norm,
            "variance": max(0.0, (squares - k * squared_norm) / (k - 1)) if k > 1 else 0.0,
            "distance": float(away @ away),
        }


def first_below(target: float, rounds: npt.NDArray[np.int64], losses: npt.NDArray[np.float64]) -> float | None:
    """Find the round at which a falling curve first reaches the target, between two points by its logarithm."""
    below = np.flatnonzero(losses <= target)
    if not below.size:
        return None
    after = int(below[0])
    if after == 0:
        return float(rounds[0])
    low, high = np.log(losses[after - 1]), np.log(losses[after])
    share = (low - np.log(target)) / (low - high)
    return float(rounds[after - 1] + share * (rounds[after] - rounds[after - 1]))
