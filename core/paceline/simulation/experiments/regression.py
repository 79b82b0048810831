"""Linear regression by SGD: the loss curve that all policies share which use as many fresh results in a round.

F(w) = ||X w - y||^2 / (2 m). A batch is keyed by round and slot, not by the worker that computes it, so whoever is
employed, equal counts give the same parameters: SGD is run once, and each policy has its own clock and bill.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from paceline.simulation.compiled.jit import compiled
from paceline.simulation.compiled.streams import STEP, hashed, unit
from paceline.simulation.experiments.listener import Listener


@dataclass(frozen=True, slots=True)
class Regression:
    """The problem.

    Attributes:
        x: rows, shape (m, d), m a multiple of the number of batches.
        y: labels, shape (m,).
        optimum: the minimiser of F, shape (d,).
        batches: b; a batch has m / b rows.
        step_size: eta.
    """

    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]
    optimum: npt.NDArray[np.float64]
    batches: int
    step_size: float

    def gap(self, w: npt.NDArray[np.float64]) -> float:
        """Return F(w) less its minimum."""
        away = self.x @ (w - self.optimum)
        return float(away @ away) / (2 * len(self.x))


def regression(seed: int, batches: int) -> Regression:
    """Draw a problem: 2000 rows uniform on {1..10}^100, true parameters on {1..100}^100, labels with N(0, 1) noise.

    Args:
        batches: b; zero rows are added until it divides the number of rows.
    Source: Egger et al. (2025), section 6, and Kas Hanna et al. (2022), whose sizes these are. The step 1e-4 is ours:
        0.3 of what the largest eigenvalue allows for gradients without noise.
    """
    samples, features = 2000, 100
    rng = np.random.default_rng([seed, 3])
    x = rng.integers(1, 11, size=(samples, features)).astype(np.float64)
    true = rng.integers(1, 101, size=features).astype(np.float64)
    y = x @ true + rng.standard_normal(samples)
    missing = -samples % batches
    x, y = np.pad(x, ((0, missing), (0, 0))), np.pad(y, (0, missing))
    optimum = np.linalg.solve(x.T @ x, x.T @ y).astype(np.float64)
    return Regression(x, y, optimum, batches, step_size=1e-4)


def loss_curve(
    problem: Regression,
    counts: npt.NDArray[np.int64],
    rounds: npt.NDArray[np.int64],
    *,
    seed: int,
    listener: Listener,
) -> npt.NDArray[np.float64]:
    """Run SGD from w = 0 and note the gap F(w) - min F.

    In round j, counts[j - 1] batches of m / b rows each, drawn without replacement, give the gradient's average.

    Args:
        counts: fresh results used in each round, shape (at least the last of `rounds`,).
        rounds: after which to note the gap, strictly increasing, from 1, shape (k,).
        seed: of the batches.
    Returns:
        gaps, shape (k,); nan after the point where the listener stopped it.
    Source: Egger et al. (2025), eq. (1).
    """
    w = np.zeros(problem.x.shape[1])
    key = np.random.SeedSequence([seed, 4]).generate_state(1, np.uint64)[0]
    batch = len(problem.x) // problem.batches
    gaps, done = np.full(len(rounds), np.nan), 0
    for place, until in enumerate(rounds.tolist()):
        if listener.stopped():
            break
        _descend(problem.x, problem.y, w, counts[done:until], done, batch, problem.step_size, key)
        gaps[place], done = problem.gap(w), until
        listener.went_on("loss curve", done)
    return gaps


@compiled
def _descend(
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
    w: npt.NDArray[np.float64],
    counts: npt.NDArray[np.int64],
    done: int,
    rows: int,
    step_size: float,
    key: np.uint64,
) -> None:
    order = np.arange(len(x))
    swaps = np.empty(rows, np.int64)
    gradient = np.empty(w.size)
    for k in range(counts.size):
        gradient[:] = 0.0
        for slot in range(counts[k]):
            state = hashed(hashed(key + np.uint64(done + k) * STEP) + np.uint64(slot) * STEP)
            for place in range(rows):
                state += STEP
                swaps[place] = other = place + int(unit(hashed(state)) * (order.size - place))
                order[place], order[other] = order[other], order[place]
                row = order[place]
                residual = -y[row]
                for i in range(w.size):
                    residual += x[row, i] * w[i]
                for i in range(w.size):
                    gradient[i] += residual * x[row, i]
            # Back to the identity: a batch depends on its round and slot alone.
            for place in range(rows - 1, -1, -1):
                other = swaps[place]
                order[place], order[other] = order[other], order[place]
        scale = step_size / (counts[k] * rows)
        for i in range(w.size):
            w[i] -= scale * gradient[i]
