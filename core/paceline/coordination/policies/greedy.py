"""GTA, also known as Rennala SGD: everybody works all the time; the first B results are used.

Source: Tyurin, Richtarik (2023), "Optimal Time Complexities of Parallel Stochastic Optimization Methods", Rennala SGD;
Maranjyan et al. (2025), section 6, "GTA". Unfinished work is thrown away at the end of the round.
"""

from __future__ import annotations

from paceline.coordination.plan import Count, Plan, View
from paceline.coordination.policies.shared import Deaf


class Greedy(Deaf):
    """One task for each free worker, another when it is done, until B results are kept; then cancel the rest."""

    name = "greedy"

    def plan(self, view: View) -> Plan:
        """See `Policy.plan`."""
        return Plan(
            allocation={worker.name: 1 for worker in view.workers},
            quota=Count(view.tasks),
            refill=True,
            cancel=True,
            reason=f"all {len(view.workers)} free workers compute until {view.tasks} results are in",
        )
