"""`paceline checkpoint`: its commands and their flags; what they do stands in checkpoints.py."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from paceline.errors import UsageError

group = typer.Typer(
    name="checkpoint",
    help="Look at the checkpoints of a run, check them, and take weights out of them.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Run = Annotated[Path, typer.Argument(metavar="RUN", help="The directory of a run.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _examples(*lines: str) -> str:
    return "\n\n".join(["Examples:", *(f"  [bold]paceline checkpoint {line}[/bold]" for line in lines)])


@group.command("ls", epilog=_examples("ls runs/a", "ls runs/a --json"))
def list_them(run: Run, as_json: AsJson = False) -> int:
    """List the checkpoints of a run, newest first: round, age, size, and what is wrong at first sight."""
    from paceline.cli.checkpoints import show

    return show(run, as_json)


@group.command("verify", epilog=_examples("verify runs/a"))
def verify(run: Run, as_json: AsJson = False) -> int:
    """Read all checkpoints of a run, its best weights too, and compare checksums; exit code 1 if one is damaged."""
    from paceline.cli.checkpoints import verify_all

    return verify_all(run, as_json)


EXPORT_EXAMPLES = _examples(
    "export runs/a --out model.safetensors",
    "export runs/a --round 120 --out model.safetensors",
    "export runs/a --best --out best.safetensors",
)


@group.command("export", epilog=EXPORT_EXAMPLES)
def export(
    run: Run,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Write there; it must not exist.", show_default=False)],
    of_round: Annotated[
        int | None, typer.Option("--round", metavar="N", help="Of this round. [dim](default: the newest)[/dim]")
    ] = None,
    best: Annotated[bool, typer.Option("--best", help="The best of the run, by its metric.")] = False,
    as_json: AsJson = False,
) -> int:
    """Write the weights of a checkpoint as a plain safetensors file, and print their fingerprint."""
    if best and of_round is not None:
        raise UsageError(f"--best and --round {of_round} contradict each other: expected one of them")
    from paceline.cli.checkpoints import export_weights

    return export_weights(run, None if best else of_round, best, out, as_json)
