"""`paceline simulate cmab`: the experiment of the CMAB paper, its table and its figures."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from paceline.cli.exit_codes import INTERRUPTED
from paceline.cli.json_file import write_json
from paceline.cli.simulate_command import SimulateCommand, check_plot_folder
from paceline.cli.simulate_report import Watcher
from paceline.cli.wide import print_wide
from paceline.errors import UsageError
from paceline.simulation.experiments.cmab import CmabResult, CmabSettings, run_cmab
from paceline.simulation.experiments.experiment import parse_means
from paceline.simulation.shapes import parse_shape

# As many rounds of each number of workers employed.
_STAGE_ROUNDS = 1000


def simulate_cmab_and_report(command: SimulateCommand) -> int:
    """Simulate, print the table, write what was asked for, and give the exit code."""
    settings = _settings(command)
    if command.plot:
        check_plot_folder(command.plot)
    rounds = settings.rounds * (1 + len(settings.policies) * settings.repeats)  # The loss curve is one more.
    with Watcher(Console(stderr=True), rounds) as watcher:
        result = run_cmab(settings, watcher)
    results = _document(result)
    print_wide(_table(results), _explanation(results))
    if command.json_file:
        write_json(command.json_file, results)
    if command.plot and result.runs:
        from paceline.cli.simulate_cmab_plots import plot_cmab

        for path in plot_cmab(result, command.plot):
            sys.stdout.write(f"paceline: figure {path}\n")
    return INTERRUPTED if result.interrupted else 0


def _settings(command: SimulateCommand) -> CmabSettings:
    for name in ("constants", "prior", "data", "staleness"):
        if getattr(command, name) is not None:
            raise UsageError(f"--{name} is {str(getattr(command, name))!r}: expected only with the ata presets")
    if command.engine != "compiled":
        raise UsageError(
            "--engine is 'machine': expected compiled, as preset cmab compares policies that no server has"
        )
    means_s = None if command.means is None else parse_means(command.means)
    workers = command.workers if command.workers is not None else (50 if means_s is None else len(means_s))
    tasks = min(20, workers) if command.tasks is None else command.tasks
    changes: dict[str, Any] = {}
    if command.law is not None:
        changes["law"] = parse_shape(command.law)
    if command.policy is not None:
        changes["policies"] = tuple(name.strip() for name in command.policy.split(","))
    return CmabSettings(
        workers=workers,
        tasks=tasks,
        rounds=_STAGE_ROUNDS * tasks if command.rounds is None else command.rounds,
        seed=command.seed,
        repeats=10 if command.repeats is None else command.repeats,
        means_s=means_s,
        k_start=command.k_start or 1,
        k_step=command.k_step,
        switch_at=command.switch_at,
        **changes,
    )


def _document(result: CmabResult) -> dict[str, Any]:
    settings = result.settings
    return {
        "preset": "cmab",
        "workers": settings.workers,
        "tasks": settings.tasks,
        "rounds": settings.rounds,
        "law": str(settings.law),
        "seed": settings.seed,
        "repeats": settings.repeats,
        "interrupted": result.interrupted,
        "policies": result.rows(),
    }


def _table(results: dict[str, Any]) -> Table:
    head = f"cmab: {results['workers']} workers, up to {results['tasks']} employed, {results['rounds']:,} rounds, "
    made = Table(title=f"{head}law {results['law']}, {results['repeats']} repetitions", title_justify="left")
    made.add_column("policy")
    for name in ("run time s", "to oracle's", "employments", "worker s", "F(w) - min F", "regret", "seconds"):
        made.add_column(name, justify="right")
    for row in results["policies"]:
        made.add_row(
            row["policy"],
            f"{row['time_s']:.6g}" + ("" if row["time_sd_s"] is None else f" +- {row['time_sd_s']:.2g}"),
            _number(row["oracle_ratio"]),
            f"{row['employments']:,}",
            f"{row['mean_round_work_s'] * row['rounds']:.6g}",
            _number(row["gap"]),
            _number(None if row["average_regret"] is None else row["average_regret"] * row["rounds"]),
            f"{row['seconds']:.1f}",
        )
    return made


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.5g}"


def _explanation(results: dict[str, Any]) -> list[str]:
    lines = ["all policies share one loss curve against rounds; k-sync and k-batch-sync keep every worker busy"]
    if results["interrupted"]:
        lines.append("interrupted: the table has what was computed until then")
    return lines
