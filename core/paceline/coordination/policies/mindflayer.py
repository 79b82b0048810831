"""MindFlayer SGD: trials that are cut off after a time limit, for workers whose times are random with heavy tails.

Source: Maranjyan, Shaikh Omar, Richtarik (2025), "MindFlayer SGD": in a round worker i makes B_i trials, each cut off
after t_i; x <- x - (gamma / B) sum of the gradients that came, B = sum_i p_i B_i, p_i the chance that a trial
succeeds.
Differs: t_i, p_i and B_i are learned. From the last times of each worker t_i is the cutoff of least expected time per
success, E min(X, t) / P(X <= t), the best one for restarts; without a heavy tail it is above all times seen, and
nothing is cut. The B trials of a round are split so that all finish together, by the exact minimiser on E min(X,
t_i). Times are seen whole only where nothing is cut: in the first rounds, and in one round now and then.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paceline.allocation import allocate
from paceline.coordination.ids import WorkerName
from paceline.coordination.plan import Count, Plan, PolicyState, Update, View
from paceline.coordination.policies.shared import fastest
from paceline.coordination.policies.whole_rounds import WholeRounds
from paceline.coordination.saved import Saved, generator_from, generator_state

_TIMES_KEPT = 64
# A cutoff must pay by so much before it is made: few times are seen, and the largest of them is luck.
_WORTH_CUTTING = 0.95


@dataclass(frozen=True, slots=True)
class Cutoff:
    """What a worker's times say.

    Attributes:
        limit_s: t_i; None: no trial is cut off.
        success: p_i.
        trial_s: expected seconds of a trial.
    """

    limit_s: float | None
    success: float
    trial_s: float


class MindFlayer:
    """Learns each worker's times, its cutoff and its share of the trials.

    Args:
        rng: spreads the trials of rounds in which some worker is unseen.
    """

    name = "mindflayer"

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._seen = WholeRounds(_TIMES_KEPT)

    @property
    def needs(self) -> int:
        """It begins with whoever is there."""
        return 1

    def plan(self, view: View) -> Plan:
        """See `Policy.plan`."""
        if view.again:
            return fastest(view)
        known = [self._seen.of(worker.name) for worker in view.workers]
        cutoffs = [best_cutoff(np.array(seen)) if seen else Cutoff(None, 1.0, 0.0) for seen in known]
        trials = allocate(np.array([cutoff.trial_s for cutoff in cutoffs]), view.tasks, self._rng).tolist()
        uncut = self._seen.due(view)
        given = [(w.name, count, c) for w, count, c in zip(view.workers, trials, cutoffs, strict=True) if count]
        limits_s = {} if uncut else {name: c.limit_s for name, _, c in given if c.limit_s is not None}
        return Plan(
            allocation={name: count for name, count, _ in given},
            quota=Count(view.tasks),
            limits_s=limits_s,
            divisor_tasks=sum(count * c.success for _, count, c in given) if limits_s else None,
            reason=_reason(view.tasks, limits_s, len(given), uncut),
        )

    def updated(self, update: Update) -> None:
        """Learn the times of a round in which nothing was cut."""
        self._seen.learn(update)

    def state(self) -> PolicyState:
        """See `Policy.state`; cutoffs are drawn from the times anew each round."""
        return {"rng": generator_state(self._rng), "seen": self._seen.state()}

    def restore(self, state: PolicyState) -> None:
        """See `Policy.restore`."""
        rng, seen = Saved(f"state of policy {self.name}", state).fields("rng", "seen")
        generator = generator_from(rng, self._rng)
        self._seen.restore(seen)
        self._rng = generator


def _reason(tasks: int, limits_s: dict[WorkerName, float], workers: int, uncut: bool) -> str:
    if uncut:
        return f"{tasks} trials without time limit, to see the times of {workers} workers"
    if not limits_s:
        return f"{tasks} trials; no cutoff would pay for any of {workers} workers"
    shown = ", ".join(f"{name} {limit_s:.3g} s" for name, limit_s in list(limits_s.items())[:5])
    return f"{tasks} trials, cut off after {shown}{', ...' if len(limits_s) > 5 else ''}"


def best_cutoff(times_s: NDArray[np.float64]) -> Cutoff:
    """Find the cutoff t of least E min(X, t) / P(X <= t) for X uniform on the times seen, shape (m,), m >= 1."""
    ordered = np.sort(times_s)
    m = ordered.size
    rank = np.arange(1, m + 1)
    trial_s = (np.cumsum(ordered) + (m - rank) * ordered) / m
    cost_s = trial_s / (rank / m)
    best = int(np.argmin(cost_s))
    if cost_s[best] > _WORTH_CUTTING * cost_s[-1]:
        return Cutoff(None, 1.0, float(trial_s[-1]))
    return Cutoff(float(ordered[best]), (best + 1) / m, float(trial_s[best]))
