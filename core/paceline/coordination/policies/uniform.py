"""UTA: every worker gets the same number of tasks.

Source: Maranjyan et al. (2025), section 6, "UTA". With more workers than tasks, B random ones get one task each, drawn
afresh each round; else floor(B/n) each and the remainder to random distinct workers (the paper does not say; ours).
"""

from __future__ import annotations

import numpy as np

from paceline.allocation import spread
from paceline.coordination.plan import Plan, View
from paceline.coordination.policies.shared import Drawing, all_tasks


class Uniform(Drawing):
    """Spread the tasks evenly.

    Args:
        rng: draws who gets the remainder.
    """

    name = "uniform"

    def plan(self, view: View) -> Plan:
        """See `Policy.plan`."""
        n = len(view.workers)
        tasks = spread(view.tasks, np.arange(n), n, self._rng)
        return all_tasks(view, tasks, f"{view.tasks} tasks spread evenly over {n} workers")
