"""`paceline plan`: whether paceline is worth it for these machines; its flags, and what they are checked for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from paceline.cli.json_file import check_writable
from paceline.cli.plan_asked import Asked, gather_asked
from paceline.cli.simulate_command import check_plot_folder, require_extra

EXAMPLES = (
    "paceline plan --means 0.1,0.2,0.8 --params 25e6 --link 1Gbit --tasks 64 --price 3,1,0.2",
    "paceline plan runs/a --link 100Mbit --plot figures",
)


def _flag(name: str, shows: str, text: str) -> typer.models.OptionInfo:
    made: typer.models.OptionInfo = typer.Option(f"--{name}", metavar=shows, help=text, show_default=False)
    return made


Text = str | None


FLAGS = {
    "means": _flag("means", "S,...", "Seconds per task of each worker: 0.1,0.2 or a=0.1,b=0.2."),
    "params": _flag("params", "N", "Trained parameters of the model, 25e6; in float32."),
    "link": _flag("link", "RATE,...", "What each worker's link carries: 1Gbit; one for all, or each."),
    "server_link": _flag("server-link", "RATE", "What the server's carries; default: the fastest."),
    "tasks": _flag("tasks", "B", "Tasks of an update. Default: the run's, or 16."),
    "price": _flag("price", "P,...", "Of an hour of each worker; one, or one each. Default: 1."),
    "law": _flag("law", "LAW", "Shape of the task times, see simulate. Default: shifted-exp."),
    "policy": _flag("policy", "P,...", "To compare. Default: ata-empirical,uniform,greedy; advice is of the first."),
    "rounds": _flag("rounds", "K", "Rounds that are simulated of each. Default: 2000."),
    "seed": _flag("seed", "N", "Same seed, same numbers. Default: 0."),
    "json_file": _flag("json", "FILE", "Write the numbers there."),
    "plot": _flag("plot", "DIR", "Draw time and price there (PNG)."),
}


def register_plan(app: typer.Typer) -> None:
    """Add the command."""
    examples = "\n\n".join(f"[bold]{example}[/bold]" for example in EXAMPLES)
    app.command("plan", epilog=f"Examples:\n\n{examples}")(plan)


def plan(
    run: Annotated[
        Path | None, typer.Argument(metavar="RUN", help="A run directory: its workers, model and tasks.")
    ] = None,
    means: Annotated[Text, FLAGS["means"]] = None,
    params: Annotated[Text, FLAGS["params"]] = None,
    link: Annotated[Text, FLAGS["link"]] = None,
    server_link: Annotated[Text, FLAGS["server_link"]] = None,
    tasks: Annotated[Text, FLAGS["tasks"]] = None,
    price: Annotated[Text, FLAGS["price"]] = None,
    law: Annotated[Text, FLAGS["law"]] = None,
    policy: Annotated[Text, FLAGS["policy"]] = None,
    rounds: Annotated[Text, FLAGS["rounds"]] = None,
    seed: Annotated[Text, FLAGS["seed"]] = None,
    json_file: Annotated[Path | None, FLAGS["json_file"]] = None,
    plot: Annotated[Path | None, FLAGS["plot"]] = None,
) -> int:
    """Say whether these machines are worth it: a round's time and price by policy, with DDP, and on one machine."""
    given = {
        "means": means, "params": params, "link": link, "server-link": server_link, "tasks": tasks, "price": price,
        "law": law, "policy": policy, "rounds": rounds, "seed": seed,
    }  # fmt: skip
    require_extra("matplotlib" if plot else "numba", "numba", command="plan")
    if json_file is not None:
        check_writable(json_file)
    if plot is not None:
        check_plot_folder(plot)
    asked: Asked = gather_asked(run, {name: text for name, text in given.items() if text is not None})
    from paceline.cli.plan_report import plan_and_report

    return plan_and_report(asked, json_file, plot)
