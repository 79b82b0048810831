"""What an experiment gave as a JSON document: one row per variant, averaged over the repetitions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from paceline.simulation.experiments.experiment import Experiment, Variant
from paceline.simulation.experiments.quadratic import Quadratic, first_below
from paceline.simulation.experiments.results import PolicyResult, rows
from paceline.simulation.experiments.running import Outcome

_AVERAGED = ("mean_round_s", "mean_round_work_s", "runtime_ratio", "work_ratio", "average_regret")


def document(experiment: Experiment, outcome: Outcome) -> dict[str, Any]:
    """Describe an experiment and its results.

    With several seeds a row's numbers are means over the repetitions that were not cut short, and `sd` has their
    deviations; `seconds` is always the sum.
    """
    return {
        "preset": experiment.preset.name,
        "workers": experiment.laws.workers,
        "tasks": experiment.tasks,
        "rounds": experiment.rounds,
        "law": experiment.law,
        "constants": experiment.constants,
        "seed": experiment.seeds[0],
        "repeats": len(experiment.seeds),
        "interrupted": outcome.interrupted,
        "policies": [row for variant in experiment.variants for row in _variant_row(experiment, outcome, variant)],
    }


def complete_results(experiment: Experiment, outcome: Outcome, variant: Variant) -> list[PolicyResult]:
    """Give a variant's results in all repetitions that it went through; if there are none, the one cut short."""
    found = [repetition.results[variant] for repetition in outcome.repetitions if variant in repetition.results]
    whole = [result for result in found if result.rounds == experiment.rounds_of(variant.policy)]
    return whole or found[-1:]


def _variant_row(experiment: Experiment, outcome: Outcome, variant: Variant) -> list[dict[str, Any]]:
    chosen = complete_results(experiment, outcome, variant)
    made = []
    for repetition in outcome.repetitions:
        result = repetition.results.get(variant)
        if result is not None and any(result is one for one in chosen):
            made += rows([result], repetition.greedy)
            if variant.prior or experiment.preset.priors != (0,):
                made[-1]["prior_rounds"] = variant.prior
            if experiment.preset.loss == "quadratic" and experiment.shares_loss_curve(variant.policy):
                made[-1] |= _until_target(experiment, result, repetition.seed)
    if len(made) < 2:
        return made
    return [_averaged(made)]


def _averaged(made: Sequence[dict[str, Any]]) -> dict[str, Any]:
    row = dict(made[0])
    row["sd"] = {}
    for key in [key for key in row if key in _AVERAGED or key.startswith("target_")]:
        values = [other[key] for other in made]
        if None in values:
            row[key] = None
            continue
        row[key] = float(np.mean(values))
        row["sd"][key] = float(np.std(values, ddof=1))
    row["tasks_per_worker"] = np.mean([other["tasks_per_worker"] for other in made], axis=0).tolist()
    row["seconds"] = sum(other["seconds"] for other in made)
    row["repeats"] = len(made)
    return row


def _until_target(experiment: Experiment, result: PolicyResult, seed: int) -> dict[str, float | None]:
    """Tell at which round the shared loss curve reaches its target, and what that took under this policy."""
    problem, at = Quadratic(tasks=experiment.tasks), result.trajectory
    reached = first_below(problem.target, at.rounds, problem.losses(at.rounds, seed))
    if reached is None:
        return {"target_round": None, "target_s": None, "target_work_s": None}
    return {
        "target_round": reached,
        "target_s": _at(reached, at.rounds, at.time_s),
        "target_work_s": _at(reached, at.rounds, at.work_s),
    }


def _at(reached: float, rounds: npt.NDArray[np.int64], totals: npt.NDArray[np.float64]) -> float:
    return float(np.interp(reached, rounds, totals))
