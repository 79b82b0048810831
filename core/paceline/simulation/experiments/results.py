"""What a simulated policy gave, and the table that compares policies with greedy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """Totals after some of the rounds, all of shape (m,).

    Attributes:
        rounds: rounds done.
        time_s, work_s: run time and worker seconds so far.
        regret_s: cumulative proxy regret; nan where the policy has none.
    """

    rounds: npt.NDArray[np.int64]
    time_s: npt.NDArray[np.float64]
    work_s: npt.NDArray[np.float64]
    regret_s: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyResult:
    """One policy in one experiment.

    Attributes:
        rounds: that were simulated.
        mean_round_s: run time of a round.
        mean_round_work_s: worker seconds of a round, used or wasted.
        average_regret: mean over the rounds of max_i a_i mu_i less the least possible, in seconds; None where a
            policy does not decide who does how much.
        tasks_per_worker: tasks used, in all rounds together.
        seconds: that the simulation took.
    """

    policy: str
    workers: int
    tasks: int
    rounds: int
    mean_round_s: float
    mean_round_work_s: float
    average_regret: float | None
    tasks_per_worker: tuple[int, ...]
    seconds: float
    trajectory: Trajectory


def checkpoints(rounds: int, count: int = 1000) -> npt.NDArray[np.int64]:
    """Choose rounds to be noted, the last one among them: `count` evenly and as many by equal ratios, fewer if few."""
    even = np.linspace(1, rounds, min(count, rounds))
    ratios = np.geomspace(1, rounds, min(count, rounds))
    return np.unique(np.rint(np.concatenate([even, ratios])).astype(np.int64))


def rows(results: Sequence[PolicyResult], greedy: PolicyResult | None) -> list[dict[str, Any]]:
    """Make one JSON row per policy.

    Args:
        greedy: what the ratios refer to; None: there are none.

    Returns:
        rows whose runtime_ratio is the run time to greedy's, and work_ratio greedy's worker seconds to the policy's.
    Source: Maranjyan et al. (2025), tables 1 and 2, whose ratios are taken at equal numbers of rounds.
    """
    return [
        {
            "policy": result.policy,
            "workers": result.workers,
            "tasks": result.tasks,
            "rounds": result.rounds,
            "mean_round_s": result.mean_round_s,
            "mean_round_work_s": result.mean_round_work_s,
            "runtime_ratio": result.mean_round_s / greedy.mean_round_s if greedy else None,
            "work_ratio": greedy.mean_round_work_s / result.mean_round_work_s if greedy else None,
            "average_regret": result.average_regret,
            "tasks_per_worker": list(result.tasks_per_worker),
            "seconds": result.seconds,
        }
        for result in results
    ]
