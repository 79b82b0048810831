"""Runs an experiment: every variant for every seed, greedy first, as the others are compared with it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np

from paceline.simulation.compiled.kernels import REGRET, TIME, WORK
from paceline.simulation.experiments.coordinated import simulate_on_coordinator
from paceline.simulation.experiments.experiment import Experiment, Variant
from paceline.simulation.experiments.games import Game, new_game
from paceline.simulation.experiments.listener import Listener
from paceline.simulation.experiments.results import PolicyResult, Trajectory, checkpoints
from paceline.simulation.setting import Setting


@dataclass(slots=True)
class Repetition:
    """What one seed gave.

    Attributes:
        greedy: None where it was not begun.
        results: by variant, in the order of the table.
    """

    seed: int
    greedy: PolicyResult | None = None
    results: dict[Variant, PolicyResult] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an experiment gave; `interrupted` says that it is not all."""

    repetitions: tuple[Repetition, ...]
    interrupted: bool


def run(experiment: Experiment, listener: Listener) -> Outcome:
    """Run an experiment until it is done or the listener has stopped it; what was computed is kept."""
    repetitions: list[Repetition] = []
    for seed in experiment.seeds:
        if listener.stopped():
            break
        repetitions.append(Repetition(seed))
        _repeat(experiment, repetitions[-1], listener)
    return Outcome(tuple(repetitions), listener.stopped())


def _repeat(experiment: Experiment, repetition: Repetition, listener: Listener) -> None:
    repetition.greedy = _simulate(experiment, Variant("greedy"), repetition.seed, listener)
    for variant in experiment.variants:
        if variant == Variant("greedy"):
            result = repetition.greedy
        else:
            result = None if listener.stopped() else _simulate(experiment, variant, repetition.seed, listener)
        if result is not None:
            repetition.results[variant] = result


def _simulate(experiment: Experiment, variant: Variant, seed: int, listener: Listener) -> PolicyResult | None:
    setting, rounds = experiment.setting(seed), experiment.rounds_of(variant.policy)
    if experiment.is_compiled(variant.policy):
        return simulate_compiled(variant, setting, rounds, listener)
    return simulate_on_coordinator(variant.policy, setting, rounds, listener)


def simulate_compiled(variant: Variant, setting: Setting, rounds: int, listener: Listener) -> PolicyResult | None:
    """Run a policy on the compiled path; None where it was stopped before the clock started."""
    # Compiling is no part of the simulation.
    new_game(variant.policy, setting).advance(1)
    began_s = time.perf_counter()
    game = new_game(variant.policy, setting)
    if not _advance(game, variant.prior, variant, listener):
        return None
    game.start_clock()
    learned_on = game.tasks_done
    noted: list[tuple[int, float, float, float]] = []
    for at in checkpoints(rounds).tolist():
        going = _advance(game, variant.prior + at, variant, listener)
        time_s, work_s, regret_s, _ = game.sums.tolist()
        noted.append((game.round - variant.prior, time_s, work_s, regret_s))
        if not going:
            break
    done, time_s, work_s, regret_s = noted[-1]
    if done == 0:
        return None
    return PolicyResult(
        policy=variant.policy,
        workers=setting.laws.workers,
        tasks=setting.tasks,
        rounds=done,
        mean_round_s=time_s / done,
        mean_round_work_s=work_s / done,
        average_regret=regret_s / done if game.has_regret else None,
        tasks_per_worker=tuple((game.tasks_done - learned_on).tolist()),
        seconds=time.perf_counter() - began_s,
        trajectory=_trajectory(noted, has_regret=game.has_regret),
    )


def _advance(game: Game, until: int, variant: Variant, listener: Listener) -> bool:
    """Play up to a round; tell whether that was reached before the listener had enough."""
    while game.round < until:
        if listener.stopped():
            return False
        game.advance(min(game.block, until - game.round))
        listener.went_on(variant.policy, game.round)
    return True


def _trajectory(noted: list[tuple[int, float, float, float]], *, has_regret: bool) -> Trajectory:
    columns = np.array(noted)
    return Trajectory(
        rounds=columns[:, 0].astype(np.int64),
        time_s=columns[:, 1 + TIME],
        work_s=columns[:, 1 + WORK],
        regret_s=columns[:, 1 + REGRET] if has_regret else np.full(len(noted), np.nan),
    )
