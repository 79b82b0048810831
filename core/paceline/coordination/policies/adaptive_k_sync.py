"""Adaptive K-sync: wait for few results while the loss falls fast, for more when it has become stationary.

Source: Kas Hanna et al. (2022), "Adaptive Stochastic Gradient Descent for Fast and Communication-Efficient Distributed
Learning", Alg. 1 with Pflug's sign test. Differs: the counter is clamped at 0 by default, since the raw one runs off to
minus the number of rounds while training goes well and does not come back (see `stationarity`); K never exceeds the
tasks per round, to which the last step is cut, nor the workers that are there.
"""

from __future__ import annotations

from paceline.coordination.plan import Plan, PolicyState, Update, View
from paceline.coordination.policies.k_sync import wait_for
from paceline.coordination.policies.schedule import check_growth
from paceline.coordination.policies.shared import fastest
from paceline.coordination.policies.stationarity import StationarityTest
from paceline.coordination.saved import Saved


class AdaptiveKSync:
    """K-sync whose K grows by a step each time that a test finds the present phase stationary.

    Args:
        start, step, most: of K.
        test: says when; it names the scalar that it looks at.

    Raises:
        UsageError: a start outside 1 to `most`, or a step below 1.
    """

    name = "adaptive-k-sync"

    def __init__(self, start: int, step: int, most: int, test: StationarityTest) -> None:
        check_growth(start, step, most)
        self._k = start
        self._step = step
        self._most = most
        self._test = test
        self._phase_begins = True

    @property
    def needs(self) -> int:
        """As many workers as results are ever awaited."""
        return self._most

    def plan(self, view: View) -> Plan:
        """See `Policy.plan`."""
        if view.again:
            return fastest(view)
        mark, self._phase_begins = self._phase_begins, False
        return wait_for(view, self._k, f"; {self._test.note()}", scalars=(self._test.scalar,), mark=mark)

    def updated(self, update: Update) -> None:
        """Ask the test, and wait for more results from now on if it says so."""
        if not update.scalars:
            return
        if self._test.stationary(update.scalars[self._test.scalar]) and self._k < self._most:
            self._k = min(self._most, self._k + self._step)
            self._test.restart()
            self._phase_begins = True

    def state(self) -> PolicyState:
        """See `Policy.state`; whether the next round is to be marked is part of it."""
        return {"k": self._k, "phase_begins": self._phase_begins, "test": self._test.state()}

    def restore(self, state: PolicyState) -> None:
        """See `Policy.restore`."""
        k, phase_begins, test = Saved(f"state of policy {self.name}", state).fields("k", "phase_begins", "test")
        count, begins = k.count(1, self._most), phase_begins.flag()
        self._test.restore(test)
        self._k, self._phase_begins = count, begins
