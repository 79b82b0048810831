"""Dynamic backup workers: wait for k of n results, k chosen anew each round for the most progress per second.

Source: Xu, Neglia, Sebastianelli (2020), "Dynamic Backup Workers for Parallel Machine Learning": k maximises the
expected gain of an update with k results over its expected time. Gain: with step size g and smoothness L the loss
falls by at least g (1 - g L / 2) |F'|^2 - (g^2 L / 2) V / k, V being the variance of one result. Time: the k-th
smallest of the workers' task times.
Differs: g L is not known, so it is taken as 1, the largest step for which the bound promises descent; the gain is
then proportional to |F'|^2 - V / k. The times' laws are each worker's own last times in rounds that waited for
everybody (the others show a slow worker only when it was lucky), of which there are some at the start and one now and
then.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from paceline.coordination.plan import Plan, PolicyState, Update, View
from paceline.coordination.policies.k_sync import wait_for
from paceline.coordination.policies.shared import fastest
from paceline.coordination.policies.whole_rounds import WholeRounds
from paceline.coordination.saved import Saved, number

_TIMES_KEPT = 32
_GRID = 64
# Weight of the newest round in the running means of |F'|^2 and V.
_NEWEST = 0.1


class Backup:
    """Learns the gradient's size and variance and everybody's times, and chooses how many to wait for."""

    name = "backup"

    def __init__(self) -> None:
        self._seen = WholeRounds(_TIMES_KEPT)
        self._results = 0
        self._squared_norm: float | None = None
        self._variance: float | None = None

    @property
    def needs(self) -> int:
        """It begins with whoever is there."""
        return 1

    def plan(self, view: View) -> Plan:
        """See `Policy.plan`."""
        if view.again:
            return fastest(view)
        n = view.joined
        if self._seen.due(view) or self._squared_norm is None or self._variance is None:
            return self._wait_for(view, n, "; looking at everybody's times")
        timed = [self._seen.of(worker.name) for worker in view.workers]
        gains = self._squared_norm - self._variance / np.arange(1, len(timed) + 1)
        if gains[-1] <= 0:
            return self._wait_for(view, n, "; noise drowns the gradient, so all results are wanted")
        rates = gains / expected_order_statistics_s(timed)
        k = int(np.argmax(rates)) + 1
        note = (
            f"; noise to signal {self._variance / self._squared_norm:.3g}, {rates[k - 1] / rates[-1]:.2f} times all's"
        )
        return self._wait_for(view, k, f"{note} progress per second")

    def updated(self, update: Update) -> None:
        """Learn from a round."""
        self._seen.learn(update)
        # One result alone does not tell signal from noise.
        if self._results > 1 and update.scalars:
            variance = update.scalars["variance"]
            # The averaged gradient's square is |F'|^2 + V / k in the mean.
            signal = max(0.0, update.scalars["squared-norm"] - variance / self._results)
            self._squared_norm = _mixed(self._squared_norm, signal)
            self._variance = _mixed(self._variance, variance)

    def state(self) -> PolicyState:
        """See `Policy.state`."""
        return {
            "results": self._results,
            "seen": self._seen.state(),
            "squared_norm": None if self._squared_norm is None else number(self._squared_norm),
            "variance": None if self._variance is None else number(self._variance),
        }

    def restore(self, state: PolicyState) -> None:
        """See `Policy.restore`."""
        keys = ("results", "seen", "squared_norm", "variance")
        results, seen, squared_norm, variance = Saved(f"state of policy {self.name}", state).fields(*keys)
        awaited = results.count(0)
        new_norm = None if squared_norm.none else squared_norm.at_least_0()
        new_variance = None if variance.none else variance.number()
        self._seen.restore(seen)
        self._results, self._squared_norm, self._variance = awaited, new_norm, new_variance

    def _wait_for(self, view: View, k: int, note: str) -> Plan:
        self._seen.begin(whole=k >= view.joined)
        self._results = min(k, max(view.joined, 1))
        return wait_for(view, k, note, scalars=("squared-norm", "variance"))


def expected_order_statistics_s(times_s: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Estimate the expected seconds until 1, 2, ..., n of n workers have finished a task.

    P(fewer than k have finished by t) is a Poisson-binomial probability of the workers' empirical distributions; its
    integral over t is the expected k-th order statistic.

    Args:
        times_s: seen seconds of each worker, at least one each.

    Returns:
        Shape (n,), ascending.
    """
    pooled = np.unique(np.concatenate([np.asarray(seen) for seen in times_s]))
    grid = pooled if pooled.size <= _GRID else np.quantile(pooled, np.linspace(0.0, 1.0, _GRID))
    done = np.stack([np.searchsorted(np.sort(seen), grid, side="right") / len(seen) for seen in times_s])
    counts = np.zeros((len(times_s) + 1, grid.size))
    counts[0] = 1.0
    for chance in done:
        counts[1:] = counts[1:] * (1.0 - chance) + counts[:-1] * chance
        counts[0] *= 1.0 - chance
    fewer = np.cumsum(counts, axis=0)[:-1]
    return float(grid[0]) + fewer[:, :-1] @ np.diff(grid)


def _mixed(old: float | None, new: float) -> float:
    return new if old is None else (1.0 - _NEWEST) * old + _NEWEST * new
