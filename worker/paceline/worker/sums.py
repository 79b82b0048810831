"""Hands out sum buffers to leases and takes them back: mostly one, each as large as a model or twice that."""

from __future__ import annotations

from collections.abc import Callable, Collection

from paceline.contribution import ContributionBuffer


class SumPool:
    """The sums of the leases that a worker holds.

    Args:
        make: makes an empty buffer; called when none is free.
    """

    def __init__(self, make: Callable[[], ContributionBuffer]) -> None:
        self._make = make
        self._taken: dict[int, ContributionBuffer] = {}
        self._free: list[ContributionBuffer] = []

    def __getitem__(self, lease_id: int) -> ContributionBuffer:
        return self._taken[lease_id]

    def of(self, lease_id: int, held: Collection[int]) -> ContributionBuffer:
        """Give a lease's sum, which is empty at first.

        Args:
            lease_id: whose.
            held: the leases that still need theirs.
        """
        total = self._taken.get(lease_id)
        if total is None:
            for other in [other for other in self._taken if other not in held]:
                self.release(other)
            total = self._free.pop() if self._free else self._make()
            total.zero_()
            self._taken[lease_id] = total
        return total

    def release(self, lease_id: int) -> None:
        """Take a lease's sum back: its bytes are not needed any more."""
        self._free.append(self._taken.pop(lease_id))
