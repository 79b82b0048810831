"""The compiled path of every policy that has one, behind one face."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from paceline.coordination.policies import employment_schedule
from paceline.coordination.policies.schedule import GrowingCount
from paceline.simulation.compiled.employed import EmployedRun
from paceline.simulation.compiled.kernels import TIME, WORK
from paceline.simulation.compiled.run import COMPILED, CompiledRun
from paceline.simulation.setting import Setting

EMPLOYED = ("cmab-lcb", "cmab-kl", "cmab-oracle", "k-sync", "k-batch-sync")
"""Policies that wait for B results of as many tasks or more, and need no kernel of a score."""

COMPILED_POLICIES = frozenset(COMPILED + EMPLOYED)


class Game(Protocol):
    """A policy's rounds on the compiled path.

    Attributes:
        round: rounds played; `block` says how many to ask for at a time.
        sums: run time, worker seconds, proxy regret and bad rounds so far (see kernels.TIME ff.).
        has_regret: the third and fourth sum mean something.
        tasks_done: tasks used, by worker.
    """

    round: int
    sums: npt.NDArray[np.float64]
    has_regret: bool

    @property
    def block(self) -> int:
        """See above."""
        ...

    @property
    def tasks_done(self) -> npt.NDArray[np.int64]:
        """See above."""
        ...

    def advance(self, rounds: int) -> None:
        """Play so many rounds."""
        ...

    def start_clock(self) -> None:
        """Forget the sums, and nothing else."""
        ...


def new_game(policy: str, setting: Setting) -> Game:
    """Begin a run of one of COMPILED_POLICIES."""
    return _EmployedGame(policy, setting) if policy in EMPLOYED else CompiledRun(policy, setting)


class _EmployedGame:
    """A policy of EMPLOYED."""

    has_regret = False

    def __init__(self, policy: str, setting: Setting) -> None:
        self.round = 0
        self.sums: npt.NDArray[np.float64] = np.zeros(4)
        grows = policy.startswith("cmab-")
        schedule = employment_schedule(setting.options()) if grows else GrowingCount(setting.tasks, 1, setting.tasks)
        self._run = EmployedRun(policy, setting.laws, schedule, setting.seed)
        # A block has a row of results for each of its rounds.
        self.block = max(1, min(1 << 14, (1 << 20) // (setting.laws.workers + setting.tasks)))

    @property
    def tasks_done(self) -> npt.NDArray[np.int64]:
        """See Game."""
        return self._run.learned.tasks_done.copy()

    def advance(self, rounds: int) -> None:
        """See Game."""
        block = self._run.advance(rounds)
        self.sums[TIME] += block.round_s.sum()
        self.sums[WORK] += block.work_s.sum()
        self.round += rounds

    def start_clock(self) -> None:
        """See Game."""
        self.sums[:] = 0.0
