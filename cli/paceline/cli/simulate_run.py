"""Runs `paceline simulate`: experiment, loss curve, table, JSON and figures."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console

from paceline.cli.exit_codes import INTERRUPTED
from paceline.cli.json_file import write_json
from paceline.cli.simulate_command import SimulateCommand, check_plot_folder
from paceline.cli.simulate_report import Watcher, explanation, table
from paceline.cli.wide import print_wide
from paceline.errors import UsageError
from paceline.simulation.experiments.document import document
from paceline.simulation.experiments.experiment import Changes, Experiment, experiment, parse_means
from paceline.simulation.experiments.presets import preset
from paceline.simulation.experiments.running import run


def simulate_and_report(command: SimulateCommand) -> int:
    """Simulate, print the table, write what was asked for, and give the exit code."""
    asked = experiment(preset(command.preset), _changes(command))
    curve = _curve(command, asked)
    if command.plot:
        check_plot_folder(command.plot)
    errors = Console(stderr=True)
    for line in _notes(asked):
        errors.out(f"paceline: {line}", highlight=False)
    with Watcher(errors, _all_rounds(asked)) as watcher:
        outcome = run(asked, watcher)
        results = document(asked, outcome)
        if curve is not None and not outcome.interrupted:
            results["loss"] = curve.train(asked.tasks, command.curve_rounds, command.seed, watcher)
            results["interrupted"] = watcher.stopped()
    print_wide(table(results), explanation(results))
    if command.json_file:
        write_json(command.json_file, results)
    if command.plot:
        from paceline.cli.simulate_plots import plot

        for path in plot(asked, outcome, results.get("loss"), command.plot):
            sys.stdout.write(f"paceline: figure {path}\n")
    return INTERRUPTED if results["interrupted"] else 0


def _changes(command: SimulateCommand) -> Changes:
    return Changes(
        workers=command.workers,
        tasks=command.tasks,
        rounds=command.rounds,
        law=command.law,
        means_s=None if command.means is None else parse_means(command.means),
        policies=None if command.policy is None else tuple(name.strip() for name in command.policy.split(",")),
        constants=command.constants or "as-run",
        seed=command.seed,
        repeats=command.repeats,
        priors=None if command.prior is None else _priors(command.prior),
        coordinator=command.engine == "machine",
        coordinated_rounds=command.machine_rounds,
        k_start=command.k_start,
        k_step=command.k_step,
        switch_at=command.switch_at,
        staleness=command.staleness,
    )


def _priors(text: str) -> tuple[int, ...]:
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() for word in words) or len(set(words)) < len(words):
        raise UsageError(f"--prior is {text!r}: expected different whole numbers of rounds, 0,10000")
    return tuple(map(int, words))


def _curve(command: SimulateCommand, asked: Experiment) -> Any:
    """Open the data of the CNN's loss curve, where one is wanted; training it is the last thing done."""
    if asked.preset.loss != "cnn" or (asked.preset.name != "ata-cifar" and command.plot is None):
        return None
    from paceline.cli.simulate_curve import Curve

    return Curve(command.data)


def _notes(asked: Experiment) -> list[str]:
    """Say which policies are simulated otherwise than the rest."""
    names = dict.fromkeys(variant.policy for variant in asked.variants if not asked.is_compiled(variant.policy))
    if not names:
        return []
    rounds = min(asked.rounds, asked.coordinated_rounds)
    return [f"{rounds:,} rounds on the coordinator itself (see --machine-rounds): {', '.join(names)}"]


def _all_rounds(asked: Experiment) -> int:
    variants = [variant for variant in asked.variants if variant.policy != "greedy"]
    rounds = sum(variant.prior + asked.rounds_of(variant.policy) for variant in variants)
    return (rounds + asked.rounds_of("greedy")) * len(asked.seeds)
