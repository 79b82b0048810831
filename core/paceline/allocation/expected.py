"""What a round would take if every task of a worker took its mean: the oracle's round, uniform's and greedy's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from paceline.allocation.exact import allocate

ORACLE, UNIFORM, GREEDY = "oracle", "uniform", "greedy"


@dataclass(frozen=True, slots=True)
class ExpectedRound:
    """A round in which nothing varies.

    Attributes:
        seconds: from its plan to the last task that it needs.
        busy_s: seconds that each worker computes, wasted ones included, shape (n,).
    """

    seconds: float
    busy_s: npt.NDArray[np.float64]


def expected_rounds(means_s: npt.NDArray[np.float64], tasks: int) -> Mapping[str, ExpectedRound]:
    """Give the round of each way to share `tasks` tasks out, transfer left aside.

    Oracle: the allocation whose slowest worker ends soonest. Uniform: as many tasks for each, the remainder for the
    fastest (a run's own are random). Greedy: all compute until `tasks` results are in, and what they have begun by
    then is wasted.

    Args:
        means_s: seconds per task, shape (n,), finite, > 0.
        tasks: B, tasks of the round, 1 to 2**40.
    Raises:
        UsageError: no workers, a mean that is not finite or below 0, or `tasks` out of range.
    Source: Maranjyan et al. (2025), the baselines OFTA, UTA and GTA, with times that do not vary.
    """
    best = allocate(means_s, tasks, np.random.default_rng(0))
    by_speed = np.argsort(means_s, kind="stable")
    share, remainder = divmod(tasks, means_s.size)
    equal = np.full(means_s.size, share, dtype=np.int64)
    equal[by_speed[:remainder]] += 1
    # The B-th result of all that are computed at the same time comes when the best allocation's last one does.
    last_s = float(np.max(best * means_s))
    return {
        ORACLE: _barrier(best * means_s),
        UNIFORM: _barrier(equal * means_s),
        GREEDY: ExpectedRound(last_s, np.full(means_s.size, last_s)),
    }


def _barrier(busy_s: npt.NDArray[np.float64]) -> ExpectedRound:
    return ExpectedRound(float(np.max(busy_s)), busy_s)
