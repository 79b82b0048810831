"""OFTA: the exact minimiser for given means, every round.

Source: Maranjyan et al. (2025), section 6, "FTA: Optimal". Differs: nothing; with means that are wrong it is a fixed
allocation and no optimum.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from paceline.allocation import allocate
from paceline.coordination.plan import Count, Plan, View
from paceline.coordination.policies.shared import Deaf, all_tasks, checked_means


class Fixed(Deaf):
    """Allocate by given means; a worker without a mean gets no tasks.

    Args:
        rng: not drawn from, as no score is zero; so it is nothing that the policy keeps.
        means_s: seconds per task by worker name, each above 0.

    Raises:
        UsageError: no means, or one that is not above 0.
    """

    name = "fixed"

    def __init__(self, rng: np.random.Generator, means_s: Mapping[str, float]) -> None:
        self._rng = rng
        self._means_s = checked_means(self.name, means_s)

    def plan(self, view: View) -> Plan:
        """See `Policy.plan`."""
        known = [i for i, worker in enumerate(view.workers) if worker.name in self._means_s]
        if not known:
            reason = f"none of the workers present has a mean (--means names {', '.join(self._means_s)})"
            return Plan(allocation={}, quota=Count(view.tasks), reason=reason)
        tasks = np.zeros(len(view.workers), dtype=np.int64)
        means = np.array([self._means_s[view.workers[i].name] for i in known])
        tasks[known] = allocate(means, view.tasks, self._rng)
        unknown = len(view.workers) - len(known)
        note = f"; {unknown} without a mean get none" if unknown else ""
        return all_tasks(view, tasks, f"{view.tasks} tasks by the given means of {len(known)} workers{note}")
