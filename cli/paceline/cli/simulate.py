"""`paceline simulate`: its flags, its help, and which of the two runners it starts."""

from __future__ import annotations

from typing import Annotated

import typer
from pydantic import ValidationError

from paceline.cli.json_file import check_writable
from paceline.cli.messages import explain
from paceline.cli.simulate_command import CMAB, SimulateCommand, require_extra
from paceline.errors import UsageError

EXAMPLES = (
    "paceline simulate --list",
    "paceline simulate ata-sqrt --workers 51 --plot figures --json out.json",
    "paceline simulate ata-sqrt --workers 100 --rounds 200000 --law lognormal:0.5 --constants paper",
    "paceline simulate ata-linear --means 1,2,4,8 --tasks 3 --policy ata,greedy,k-sync --repeats 5",
)

Text = str | None


def _flag(name: str, shows: str, text: str, panel: str) -> typer.models.OptionInfo:
    made: typer.models.OptionInfo = typer.Option(
        f"--{name}", metavar=shows, help=text, rich_help_panel=panel, show_default=False
    )
    return made


_WHAT, _HOW, _FILES = "What is simulated (default: as in the paper)", "How", "Files"
FLAGS = {
    "workers": _flag("workers", "N", "How many workers; the preset's rule gives their means.", _WHAT),
    "tasks": _flag("tasks", "B", "Tasks per round.", _WHAT),
    "rounds": _flag("rounds", "K", "Rounds of each policy.", _WHAT),
    "law": _flag("law", "LAW", "Shape of every worker's task times, scaled to its mean: const, exp, shifted-exp, "
                 "uniform:REL, lognormal:SIGMA, gamma:SHAPE, spikes:P:FACTOR.", _WHAT),
    "means": _flag("means", "S,...", "Mean seconds per task, one for each worker.", _WHAT),
    "policy": _flag("policy", "P,...", "Policies to compare; greedy is simulated in any case, for the ratios.", _WHAT),
    "constants": _flag("constants", "C", "How much the ATA policies explore: as-run (default: the factors that give "
                       "the paper's tables), paper (those that it prints) or a number.", _WHAT),
    "k_start": _flag("k-start", "N", "Workers that the cmab policies employ at first, or results that adaptive-k-sync "
                     "awaits; --tasks is the most.", _WHAT),
    "k_step": _flag("k-step", "N", "By so many it grows. Default: 1.", _WHAT),
    "switch_at": _flag("switch-at", "ROUNDS", "cmab: it grows after these rounds, 100,200,300 or every:100.", _WHAT),
    "staleness": _flag("staleness", "R", "Asynchronous policies: drop results R or more versions behind.", _WHAT),
    "prior": _flag("prior", "P,...", "Rounds that the ATA policies learn for before the clock starts.", _WHAT),
    "seed": _flag("seed", "N", "Same seed, same numbers. Default: 0.", _HOW),
    "repeats": _flag("repeats", "R", "Repeat with the seeds N, N+1, ... and give means and deviations.", _HOW),
    "engine": _flag("engine", "compiled|machine", "machine: run every policy on the coordinator of the real server, "
                    "on a virtual clock. Policies without a compiled path always do. Default: compiled.", _HOW),
    "machine_rounds": _flag("machine-rounds", "N", "Simulate no more rounds there. Default: 2000.", _HOW),
    "curve_rounds": _flag("curve-rounds", "N", "Train the CNN's loss curve for so many rounds. Default: 300.", _HOW),
    "data": _flag("data", "DIR", "Images for it: cifar-100-binary/train.bin or MNIST's idx files; without: the digits "
                  "of scikit-learn.", _FILES),
    "json_file": _flag("json", "FILE", "Write the results there.", _FILES),
    "plot": _flag("plot", "DIR", "Draw the paper's figures there (PNG).", _FILES),
}  # fmt: skip


def simulate(
    preset: Annotated[Text, typer.Argument(metavar="PRESET", help="See --list.", show_default=False)] = None,
    list_presets: Annotated[bool, typer.Option("--list", help="Say what each preset does, and exit.")] = False,
    workers: Annotated[Text, FLAGS["workers"]] = None,
    tasks: Annotated[Text, FLAGS["tasks"]] = None,
    rounds: Annotated[Text, FLAGS["rounds"]] = None,
    law: Annotated[Text, FLAGS["law"]] = None,
    means: Annotated[Text, FLAGS["means"]] = None,
    policy: Annotated[Text, FLAGS["policy"]] = None,
    constants: Annotated[Text, FLAGS["constants"]] = None,
    k_start: Annotated[Text, FLAGS["k_start"]] = None,
    k_step: Annotated[Text, FLAGS["k_step"]] = None,
    switch_at: Annotated[Text, FLAGS["switch_at"]] = None,
    staleness: Annotated[Text, FLAGS["staleness"]] = None,
    prior: Annotated[Text, FLAGS["prior"]] = None,
    seed: Annotated[Text, FLAGS["seed"]] = None,
    repeats: Annotated[Text, FLAGS["repeats"]] = None,
    engine: Annotated[Text, FLAGS["engine"]] = None,
    machine_rounds: Annotated[Text, FLAGS["machine_rounds"]] = None,
    curve_rounds: Annotated[Text, FLAGS["curve_rounds"]] = None,
    data: Annotated[Text, FLAGS["data"]] = None,
    json_file: Annotated[Text, FLAGS["json_file"]] = None,
    plot: Annotated[Text, FLAGS["plot"]] = None,
) -> int:
    """Reproduce the papers' experiments on a simulated clock: any policy, any workers, millions of rounds."""
    given = dict(locals())
    if given.pop("list_presets"):
        from paceline.cli.simulate_report import list_of_presets

        typer.echo(list_of_presets())
        return 0
    if preset is None:
        raise UsageError("PRESET is missing: expected `paceline simulate PRESET`; --list says which there are")
    return _start({name: value for name, value in given.items() if value is not None})


def _start(given: dict[str, object]) -> int:
    try:
        command = SimulateCommand.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0])
        raise UsageError(explain(SimulateCommand, first, f"--{name.replace('_', '-')}")) from None
    from paceline.simulation.experiments.presets import preset

    if command.preset != CMAB:
        preset(command.preset, others=(CMAB,))
    require_extra("matplotlib" if command.plot else "numba", "numba")
    if command.json_file:
        check_writable(command.json_file)
    if command.preset == CMAB:
        from paceline.cli.simulate_cmab import simulate_cmab_and_report

        return simulate_cmab_and_report(command)
    from paceline.cli.simulate_run import simulate_and_report

    return simulate_and_report(command)
