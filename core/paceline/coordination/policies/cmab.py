"""Combinatorial bandits: each round employ the r workers that look fastest, and use all r results.

r grows after given rounds (see `schedule`), as many workers are worth their price only late in training: a round with
r results of s samples leaves an error floor proportional to 1 / (r s). Nobody is refilled or cancelled, so the bill is
exactly the sum of r over the rounds, and everything paid for is used.

Source: Egger, Bitar, Wachter-Zeh, Gunduz (2025), "Cost-Efficient Distributed Learning via Combinatorial Multi-Armed
Bandits", Alg. 1, with the index of its section 4 (`CmabLcb`) or its KL index (`CmabKl`), see allocation.indices.
Differs: workers may join late and leave. A round that asks for more workers than are there is clipped. A late joiner
that is unseen has the smallest index; only one such worker is employed in a round, lest many of them at once make it as
slow as the slowest. A lost worker's task goes to the free workers of smallest index, at the same version.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from paceline.allocation import Exploration, exploration_term, kl_indices, lcb_indices, smallest
from paceline.coordination.plan import Count, Plan, View
from paceline.coordination.policies.schedule import GrowingCount
from paceline.coordination.policies.shared import Columns, Deaf, Drawing, checked_means, columns
from paceline.errors import UsageError


class CmabKl(Drawing):
    """Employ by the KL lower confidence bound of exponential times; needs no bound on the means.

    Args:
        rng: breaks ties.
        schedule: how many workers to employ.
        exploration: "practical", f = ln j, or "theorem", f = ln j + 3 ln ln j.
    """

    name = "cmab-kl"

    def __init__(
        self, rng: np.random.Generator, schedule: GrowingCount, exploration: Exploration = "practical"
    ) -> None:
        super().__init__(rng)
        self._schedule = schedule
        self._exploration = exploration

    @property
    def needs(self) -> int:
        """Round 1 waits for as many workers as are ever employed: later rounds are clipped only by losses."""
        return self._schedule.most

    def plan(self, view: View) -> Plan:
        """See `Policy.plan`."""
        known = columns(view)
        candidates = _candidates(view, known)
        indices = self._indices(known, view.round)[candidates]
        asked = view.tasks if view.again else self._schedule.at(view.round)
        chosen = candidates[smallest(indices, min(asked, candidates.size), self._rng)]
        left_out = len(view.workers) - candidates.size
        out = f", {left_out} of them to be tried later" if left_out else ""
        return _employ(view, chosen, asked, out, self._note(known))

    def _indices(self, known: Columns, number: int) -> NDArray[np.float64]:
        return kl_indices(known.tasks_done, known.busy_s, float(exploration_term(number, self._exploration)))

    def _note(self, known: Columns) -> str:
        del known
        return ""


class CmabLcb(CmabKl):
    """Employ by the LCB index, which needs a bound on every worker's mean.

    Args:
        mean_max_s: the bound; None: the largest learned mean, which has no guarantee (experimental).

    Raises:
        UsageError: a bound that is not a finite number above 0.
    """

    name = "cmab-lcb"

    def __init__(self, rng: np.random.Generator, schedule: GrowingCount, mean_max_s: float | None = None) -> None:
        if mean_max_s is not None and not 0 < mean_max_s < float("inf"):
            raise UsageError(f"mean-max is {mean_max_s}: expected seconds above 0")
        super().__init__(rng, schedule)
        self._mean_max_s = mean_max_s

    def _mean_max(self, known: Columns) -> float:
        if self._mean_max_s is not None:
            return self._mean_max_s
        return float((known.busy_s / np.maximum(known.tasks_done, 1)).max())

    def _indices(self, known: Columns, number: int) -> NDArray[np.float64]:
        return lcb_indices(known.tasks_done, known.busy_s, number, self._mean_max(known))

    def _note(self, known: Columns) -> str:
        if self._mean_max_s is not None:
            return f"; no mean above {self._mean_max_s:.4g} s, as given"
        return f"; bound {self._mean_max(known):.4g} s, the largest learned mean (experimental)"


class CmabOracle(Deaf):
    """Employ the workers of smallest true mean; equal ones in the view's order. For experiments.

    Args:
        schedule: how many workers to employ.
        means_s: seconds per task by worker name; a worker without one is not employed.

    Raises:
        UsageError: no means, or one that is not above 0.
    """

    name = "cmab-oracle"

    def __init__(self, schedule: GrowingCount, means_s: Mapping[str, float]) -> None:
        self._schedule = schedule
        self._means_s = checked_means(self.name, means_s)

    @property
    def needs(self) -> int:
        """See `CmabKl.needs`."""
        return self._schedule.most

    def plan(self, view: View) -> Plan:
        """See `Policy.plan`."""
        known = np.array([i for i, worker in enumerate(view.workers) if worker.name in self._means_s], dtype=np.int64)
        if not known.size:
            reason = f"none of the workers present has a mean (--means names {', '.join(self._means_s)})"
            return Plan(allocation={}, quota=Count(view.tasks), reason=reason)
        asked = view.tasks if view.again else self._schedule.at(view.round)
        means_s = np.array([self._means_s[view.workers[i].name] for i in known])
        chosen = known[np.sort(np.argsort(means_s, kind="stable")[:asked])]
        left_out = len(view.workers) - known.size
        out = f", {left_out} of them without a mean" if left_out else ""
        return _employ(view, chosen, asked, out, "; by the given means")


def _candidates(view: View, known: Columns) -> NDArray[np.int64]:
    """Give the workers that may be employed: all but the first of the unseen late joiners stay out.

    Of lost tasks an unseen late joiner gets none, for another may be at work in this round, unless nobody else is free.
    """
    unseen = ~known.founders & (known.tasks_done == 0)
    seen, late = np.flatnonzero(~unseen), np.flatnonzero(unseen)
    if view.again and seen.size:
        return seen
    return np.sort(np.concatenate((seen, late[:1])))


def _employ(view: View, chosen: NDArray[np.int64], asked: int, out: str, note: str) -> Plan:
    """Plan a round with one task for each chosen worker; of lost tasks, several where too few are there."""
    names = [view.workers[i].name for i in chosen]
    if view.again:
        share, rest = divmod(view.tasks, len(names))
        allocation = {name: share + (place < rest) for place, name in enumerate(names)}
        reason = f"{view.tasks} lost tasks planned again, for {len(names)} free workers{note}"
        return Plan(allocation=allocation, quota=Count(view.tasks), reason=reason)
    reason = f"employs {len(names)} of {len(view.workers)} workers{note}"
    if len(names) < asked:
        reason = f"employs {len(names)} of the {asked} asked for: {len(view.workers)} workers are there{out}{note}"
    return Plan(allocation=dict.fromkeys(names, 1), quota=Count(len(names)), reason=reason)
