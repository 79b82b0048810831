"""K-sync and K-batch-sync: use the first K results at the present version, throw the others away.

Source: Dutta, Joshi, Ghosh, Dube, Nagpurkar (2018), "Slow and Stale Gradients Can Win the Race", K-sync SGD and
K-batch-sync SGD. Expected time of an update with n iid exponential workers of rate l: (H_n - H_{n-K}) / l and K / (n
l). Wasted: up to n - K started tasks an update in K-sync, n - 1 in K-batch-sync.
Differs: a cancelled worker stops at the end of its micro-step, not at once, and joins the round in progress when it
has. With fewer than K workers K is clipped to their number. A lost worker's task is done again by one that is free,
which may have delivered in this round already.
"""

from __future__ import annotations

from paceline.coordination.plan import Count, Plan, View
from paceline.coordination.policies.greedy import Greedy
from paceline.coordination.policies.shared import Deaf, clipped, fastest, one_each


class KSync(Deaf):
    """One task for each worker; the first K distinct workers count, the rest are cancelled.

    Args:
        k: results per update, at least 1.
    """

    name = "k-sync"

    def __init__(self, k: int) -> None:
        self._k = k

    @property
    def needs(self) -> int:
        """K workers: fewer cannot give K distinct results."""
        return self._k

    def plan(self, view: View) -> Plan:
        """See `Policy.plan`."""
        if view.again:
            return fastest(view)
        return wait_for(view, self._k)


class KBatchSync(Greedy):
    """Everybody computes, again and again, until K results are in: the same rule as `greedy`, under its other name."""

    name = "k-batch-sync"


def wait_for(view: View, k: int, note: str = "", *, scalars: tuple[str, ...] = (), mark: bool = False) -> Plan:
    """Plan one task for each worker and the end at the k-th result."""
    count, clip = clipped(k, view)
    return Plan(
        allocation=one_each(view),
        quota=Count(count),
        cancel=True,
        join_in=True,
        scalars=scalars,
        mark=mark,
        reason=f"the first {count} of {view.joined} workers count{clip}{note}",
    )
