"""`paceline export`: a run's model as a folder that other tools read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from paceline.errors import UsageError

EXAMPLES = ("paceline export runs/a --to model", "paceline export runs/a --to model --best")


def register_export(app: typer.Typer) -> None:
    """Add export to the commands."""
    app.command("export", epilog="\n\n".join(["Examples:", *(f"  [bold]{line}[/bold]" for line in EXAMPLES)]))(export)


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The directory of a run.", show_default=False)],
    to: Annotated[Path, typer.Option(metavar="DIR", help="Write there; a new or empty folder.", show_default=False)],
    best: Annotated[bool, typer.Option("--best", help="The best of the run, by its metric.")] = False,
    of_round: Annotated[
        int | None, typer.Option("--round", metavar="N", help="That of this checkpoint. [dim](default: the last)[/dim]")
    ] = None,
    job: Annotated[str | None, typer.Option(metavar="JOB", help="Its job. [dim](default: as in the run)[/dim]")] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder with the data. [dim](default: as in the run)[/dim]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Write a run's model for others: in Hugging Face's layout if it is one of theirs, else safetensors and a note."""
    if best and of_round is not None:
        raise UsageError(f"--best and --round {of_round} contradict each other: expected one of them")
    from paceline.server.finished import export as write

    done = write(run, to, "best" if best else of_round, job=job, data=data)
    if as_json:
        document = {
            "to": str(done.path), "layout": done.layout, "files": list(done.files), "fingerprint": done.fingerprint
        }  # fmt: skip
        typer.echo(json.dumps(document))
    else:
        typer.echo(f"{done.path}: {', '.join(done.files)}; fingerprint {done.fingerprint}")
    return 0
