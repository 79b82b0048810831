"""Malenia SGD: data belong to workers; all compute until the harmonic mean of their counts is large enough.

Source: Tyurin, Richtarik (2023), "Optimal Time Complexities of Parallel Stochastic Optimization Methods", Malenia
SGD; Maranjyan et al. (2025), appendix B. With s_i gradients from part i, g_i their sum and n parts: stop when ((1/n)
sum_i 1/s_i)^-1 >= S/n, then x <- x - (gamma/n) sum_i g_i / s_i. Work in flight is thrown away.
Differs: nothing while nobody leaves. What a worker that is drained has done in the round is done again by its
successor: its contribution could be weighed at the stop only, and it is not kept so long. A worker that is lost after
the stop is replaced by its successor, which does as many tasks of that part as were counted, so that the weights
stand. While a part has no worker nobody computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from paceline.coordination.plan import Plan, Share, View, part_name
from paceline.coordination.policies.shared import Deaf, one_each
from paceline.errors import UsageError


@dataclass(frozen=True, slots=True)
class Harmonic:
    """Enough is a harmonic mean of the shares' counts of at least `level`.

    Args:
        shares: all of them, at least one.
    """

    shares: tuple[Share, ...]
    level: float

    def missing(self, kept: Mapping[Share, int], in_flight: int) -> int:
        """See `Quota.missing`; how many are missing cannot be told, so it is 1, or one for each share without any."""
        counts = [kept.get(share, 0) for share in self.shares]
        without = counts.count(0)
        # A tolerance for the rounding of the sum: counts that are all equal to the level suffice.
        if not without and len(counts) / sum(1.0 / count for count in counts) >= self.level * (1.0 - 1e-12):
            return 0
        return max(0, max(without, 1) - in_flight)

    def wants(self, share: Share, kept: Mapping[Share, int]) -> bool:
        """See `Quota.wants`."""
        del share, kept
        return True


class Malenia(Deaf):
    """Everybody computes on its own part of the data until the harmonic stop; each part counts the same.

    Args:
        parts: number of parts, at least 1 (`--partition`).

    Raises:
        UsageError: no parts.
    """

    name = "malenia"

    def __init__(self, parts: int) -> None:
        if parts < 1:
            raise UsageError("policy malenia needs data that belong to workers: expected --partition N")
        self._shares = tuple(part_name(part) for part in range(parts))

    def plan(self, view: View) -> Plan:
        """See `Policy.plan`."""
        n = len(self._shares)
        level = view.tasks / n
        return Plan(
            allocation=one_each(view),
            quota=Harmonic(self._shares, level),
            refill=True,
            cancel=True,
            weigh=lambda counts: {share: 1.0 / count for share, count in counts.items()},
            reason=f"all {n} parts are worked on until the harmonic mean of their counts is {level:.4g}",
        )
