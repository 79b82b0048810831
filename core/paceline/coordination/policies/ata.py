"""ATA and ATA-Empirical: allocate by optimistic scores.

Source: Maranjyan, Saad, Richtarik, Orabona (2025), "ATA: Adaptive Task Allocation", Alg. 1 and section 6.
Differs: workers may join late (ADR-0001); without late joiners every decision is the paper's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from paceline.allocation import allocate_with_newcomers, ata_empirical_scores, ata_scores, constant_for
from paceline.coordination.plan import Plan, View
from paceline.coordination.policies.shared import Columns, Drawing, all_tasks, columns


class AtaEmpirical(Drawing):
    """ATA with a confidence radius that scales with each worker's own mean: needs no bound on the times.

    Args:
        rng: spreads the tasks of rounds in which some score is zero.
        constants: "paper", "as-run" or a number, see allocation.constant_for.

    Raises:
        UsageError: constants that do not parse.
    """

    name = "ata-empirical"

    def __init__(self, rng: np.random.Generator, constants: str = "paper") -> None:
        super().__init__(rng)
        self._constant = constant_for(self.name, constants)

    def plan(self, view: View) -> Plan:
        """See `Policy.plan`."""
        known = columns(view)
        scores = self._scores(known)
        tasks = allocate_with_newcomers(scores, view.tasks, known.founders, self._rng)
        return all_tasks(view, tasks, _reason(view, scores) + self._note(known))

    def _scores(self, known: Columns) -> NDArray[np.float64]:
        return ata_empirical_scores(known.tasks_done, known.busy_s, known.rounds, self._constant)

    def _note(self, known: Columns) -> str:
        del known
        return ""


class Ata(AtaEmpirical):
    """ATA with a known bound alpha on the Orlicz norm of the times.

    Args:
        alpha_s: the bound in seconds; None: twice the largest learned mean, which is ours and not the paper's
            (for exponential times the norm is twice the mean). While nothing is learned every score is zero anyway.
    """

    name = "ata"

    def __init__(self, rng: np.random.Generator, constants: str = "paper", alpha_s: float | None = None) -> None:
        super().__init__(rng, constants)
        self._alpha_s = alpha_s

    def _alpha(self, known: Columns) -> float:
        if self._alpha_s is not None:
            return self._alpha_s
        done = known.tasks_done > 0
        means = known.busy_s[done] / known.tasks_done[done]
        largest = float(means.max()) if means.size else 0.0
        return 2.0 * largest if largest > 0 else 1.0

    def _scores(self, known: Columns) -> NDArray[np.float64]:
        return ata_scores(known.tasks_done, known.busy_s, known.rounds, self._alpha(known), self._constant)

    def _note(self, known: Columns) -> str:
        if self._alpha_s is not None:
            return f"; alpha {self._alpha_s:.4g} s as given"
        return f"; alpha {self._alpha(known):.4g} s, twice the largest learned mean (our rule, not the paper's)"


def _reason(view: View, scores: NDArray[np.float64]) -> str:
    zero = int((scores == 0).sum())
    what = f"{view.tasks} lost tasks planned again" if view.again else f"{view.tasks} tasks"
    if zero:
        return f"{what}: spread over the {zero} of {len(scores)} workers that may still be arbitrarily fast"
    return f"{what}: by score, so that {len(scores)} workers finish together"
