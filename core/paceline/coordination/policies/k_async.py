"""Asynchronous policies: nobody is cancelled, results of older versions count.

    policy          update after            who goes on at once            results that count
    k-async         K distinct workers      those that did not deliver     all
    k-batch-async   K results               everybody                      all
    asgd            1 result                everybody                      all
    ringmaster      1 result                everybody                      fewer than R versions behind

Sources: Dutta, Joshi, Ghosh, Dube, Nagpurkar (2018), "Slow and Stale Gradients Can Win the Race" (the K family; K = 1
is asynchronous SGD); Maranjyan, Tyurin, Richtarik (2025), "Ringmaster ASGD", Alg. 1: a gradient taken at x^{k-d} and
arriving at update k counts iff d < R, and its worker starts anew at the present point either way.
Differs: a result that arrives while an update is being made waits for the next one, and its staleness counts from
there. `staleness` may bound the K family too (the papers use all). R = max(1, ceil(sigma^2 / eps)) is not known in
training: without a bound ringmaster takes twice the number of workers.
"""

from __future__ import annotations

from paceline.coordination.plan import Count, Plan, View
from paceline.coordination.policies.shared import Deaf, clipped, fastest, one_each


class KAsync(Deaf):
    """Update with the first K distinct workers; they wait for it, the others go on with what they have.

    Args:
        k: results per update, at least 1.
        staleness: results so many versions behind, or more, are dropped; None: none is.
    """

    name = "k-async"

    def __init__(self, k: int, staleness: int | None = None) -> None:
        self._k = k
        self._staleness = staleness

    @property
    def needs(self) -> int:
        """K workers: fewer cannot give K distinct results."""
        return self._k

    def plan(self, view: View) -> Plan:
        """See `Policy.plan`."""
        if view.again:
            return fastest(view)
        count, clip = clipped(self._k, view)
        return self._plan(view, count, f"the first {count} distinct of {view.joined} workers count{clip}")

    def _bound(self, view: View) -> int | None:
        del view
        return self._staleness

    def _plan(self, view: View, count: int, reason: str, *, refill: bool = False) -> Plan:
        bound = self._bound(view)
        what = "late work counts" if bound is None else f"late work counts below {bound} versions"
        return Plan(
            allocation=one_each(view),
            quota=Count(count),
            refill=refill,
            max_staleness=None if bound is None else bound - 1,
            reason=f"{reason}; {what}",
        )


class KBatchAsync(KAsync):
    """Update with the first K results, whoever they are from; nobody waits."""

    name = "k-batch-async"

    @property
    def needs(self) -> int:
        """One worker can give all K."""
        return 1

    def plan(self, view: View) -> Plan:
        """See `Policy.plan`."""
        what = "each result makes an update" if self._k == 1 else f"the first {self._k} results make an update"
        return self._plan(view, self._k, what, refill=True)


class Asgd(KBatchAsync):
    """Asynchronous SGD: every result makes an update.

    Args:
        staleness: as for KAsync.
    """

    name = "asgd"

    def __init__(self, staleness: int | None = None) -> None:
        super().__init__(1, staleness)


class Ringmaster(Asgd):
    """Asynchronous SGD that drops what is R or more versions behind.

    Args:
        staleness: R; None: twice the number of workers (ours).
    """

    name = "ringmaster"

    def _bound(self, view: View) -> int:
        return self._staleness if self._staleness is not None else 2 * max(view.joined, 1)
