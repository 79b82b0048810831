"""`paceline report`: pictures of past runs, and runs compared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from paceline.cli.json_file import check_writable, write_json, write_whole
from paceline.cli.wide import print_wide

EXAMPLES = (
    "paceline report runs/a",
    "paceline report runs/a --html a.html",
    "paceline report runs/a runs/b runs/c --html compared.html --json compared.json",
)


def register_report(app: typer.Typer) -> None:
    """Add the command."""
    shown = "\n\n".join(["Examples:", *(f"  [bold]{example}[/bold]" for example in EXAMPLES)])
    app.command("report", epilog=shown)(report)


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Directories of runs.", show_default=False)],
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write the pictures there.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write what they are drawn from there.")
    ] = None,
) -> int:
    """Tell runs again from their directories: a table of them, and the live page's pictures as one file.

    A run that goes on is told as far as it is.
    """
    for path, flag in ((html, "--html"), (json_file, "--json")):
        if path is not None:
            check_writable(path, flag)
    from paceline.server.past_run import open_run
    from paceline.server.report import report_html
    from paceline.server.retelling import picture_of

    documents = []
    for path in runs:
        with open_run(path) as run:
            documents.append(picture_of(run))
    if html is not None:
        write_whole(html, report_html(documents))
    if json_file is not None:
        write_json(json_file, {"runs": documents})
    print_wide(_table(documents), [f"pictures: {html}"] if html is not None else [])
    return 0


def _table(documents: list[dict[str, Any]]) -> Table:
    metrics = sorted({name for document in documents for name in document["now"]["metrics"]})
    priced = any(document["now"]["cost"] is not None for document in documents)
    table = Table("run", "policy", "state", box=box.SIMPLE_HEAD)
    for heading in (
        "rounds",
        "seconds",
        "worker s",
        "wasted s",
        "waited s",
        *(["cost"] if priced else []),
        "loss",
        *metrics,
    ):
        table.add_column(heading, justify="right")
    for document in documents:
        run, now = document["run"], document["now"]
        numbers = [now["training_s"], now["used_s"] + now["wasted_s"], now["wasted_s"], now["idle_s"]]
        numbers += [now["cost"]] if priced else []
        numbers += [now["loss"], *(now["metrics"].get(name) for name in metrics)]
        table.add_row(run["dir"], run["policy"], now["state"], str(now["version"]), *map(_number, numbers))
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
