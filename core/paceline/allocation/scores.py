"""Scores of ATA and ATA-Empirical: lower confidence bounds of each worker's seconds per task.

Statistics are those of the rounds before the one being planned. K counts tasks, not rounds (one sentence of a proof in
the paper says rounds; its Algorithm 1, line 9, and its tables say tasks). A worker without a task has score zero.

Warning: two sets of constants exist. The paper prints a radius factor of 2 (ATA, times alpha) and 2 (ATA-Empirical,
with eta = 1); its published tables are reproduced only with 4e and 8e, which explore about 30 and 120 times more.
"""

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from paceline.errors import UsageError

Rounds: TypeAlias = int | npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Constants:
    """Factors of the confidence radius: for ATA times alpha, for ATA-Empirical times the mean (eta included)."""

    ata: float
    ata_empirical: float


PAPER = Constants(ata=2.0, ata_empirical=2.0)
"""As printed: 2 alpha; 2 eta with eta = 1."""

AS_RUN = Constants(ata=4.0 * math.e, ata_empirical=8.0 * math.e)
"""As fitted to the published tables: 4e alpha; 4e eta with eta = 2. Not stated in the paper."""

_PRESETS = {"paper": PAPER, "as-run": AS_RUN}


def constant_for(policy: str, value: str | float) -> float:
    """Return the radius factor that `value`, a preset's name or a number > 0, means for `policy`.

    Raises:
        UsageError: `policy` is neither "ata" nor "ata-empirical", or `value` is no preset and no number > 0.
    """
    if policy not in ("ata", "ata-empirical"):
        raise UsageError(f"policy {policy!r} has no confidence constant: expected ata or ata-empirical")
    preset = _PRESETS.get(value) if isinstance(value, str) else None
    if preset is not None:
        return preset.ata if policy == "ata" else preset.ata_empirical
    try:
        constant = float(value)
    except ValueError:
        constant = math.nan
    if not 0.0 < constant < math.inf:
        raise UsageError(f"confidence constant is {value!r}: expected paper, as-run or a number > 0")
    return constant


def log_term(rounds: Rounds) -> npt.NDArray[np.float64]:
    """Return L = ln(2 k^2), k the 1-based number of the round being planned, one for all workers or one each.

    Source: Maranjyan et al. (2025), section 4, with delta = 1/k^2 for each worker.
    """
    k = np.asarray(rounds, dtype=np.float64)
    result: npt.NDArray[np.float64] = np.log(2.0 * k * k)
    return result


def ata_scores(
    tasks_done: npt.NDArray[np.int64], busy_s: npt.NDArray[np.float64], rounds: Rounds, alpha_s: float, constant: float
) -> npt.NDArray[np.float64]:
    """Score by ATA: max(mean - constant alpha (sqrt(r) + r), 0) with r = L / K; 0 where K = 0.

    Args:
        tasks_done: K, shape (n,), counted in tasks.
        busy_s: T, seconds spent on them, shape (n,); 0 where K is.
        rounds: number of the round being planned, from 1; shape (n,) where late joiners count their own.
        alpha_s: bound on the psi_1 norm of a task's seconds about their mean, for every worker.
        constant: see `constant_for`.
    Returns:
        scores in seconds per task, shape (n,), >= 0.
    Source: Maranjyan et al. (2025), Alg. 1, conf(i, k).
    """
    mean_s, width = _mean_and_width(tasks_done, busy_s, rounds)
    return np.maximum(mean_s - constant * alpha_s * width, 0.0)


def ata_empirical_scores(
    tasks_done: npt.NDArray[np.int64], busy_s: npt.NDArray[np.float64], rounds: Rounds, constant: float
) -> npt.NDArray[np.float64]:
    """Score by ATA-Empirical: mean max(1 - constant (sqrt(r) + r), 0) with r = L / K; 0 where K = 0.

    Arguments and result as for `ata_scores`; `constant` includes eta.

    Source: Maranjyan et al. (2025), section 6.
    """
    mean_s, width = _mean_and_width(tasks_done, busy_s, rounds)
    return mean_s * np.maximum(1.0 - constant * width, 0.0)


def ata_empirical_radius_s(
    tasks_done: npt.NDArray[np.int64], busy_s: npt.NDArray[np.float64], rounds: Rounds, constant: float
) -> npt.NDArray[np.float64]:
    """Return the confidence radius that users see for every policy: mean constant (sqrt(r) + r) in seconds.

    It may exceed the mean (the score is then zero). NaN where nothing is learned (K = 0).

    Arguments as for `ata_empirical_scores`.
    """
    mean_s, width = _mean_and_width(tasks_done, busy_s, rounds)
    return np.where(tasks_done > 0, constant * mean_s * width, np.nan)


def _mean_and_width(
    tasks_done: npt.NDArray[np.int64], busy_s: npt.NDArray[np.float64], rounds: Rounds
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return mean seconds per task and sqrt(r) + r; where K = 0 (so T = 0) the mean is 0, hence the scores."""
    counted = np.maximum(tasks_done, 1)
    r = log_term(rounds) / counted
    return busy_s / counted, np.sqrt(r) + r
