"""`paceline doctor`: why a worker cannot join."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated

import typer

from paceline.cli.asking import Server, TlsDir, TokenFile, access_of, check_address
from paceline.errors import UsageError
from paceline.settings import WORKER_NAME

EXAMPLES = (
    "paceline doctor main-node:7070 my_job.py:MyJob --data /data --name w1 --tls-dir tls --token-file w1.token",
    "paceline doctor main-node:7070",
)

_MARKS = {True: "ok", False: "WRONG", None: "-"}


def register_doctor(app: typer.Typer) -> None:
    """Add the command."""
    shown = "\n\n".join(["Examples:", *(f"  [bold]{example}[/bold]" for example in EXAMPLES)])
    app.command("doctor", epilog=shown)(doctor)


def doctor(
    server: Server,
    job: Annotated[
        str | None, typer.Argument(metavar="JOB", help="The worker's job, to be compared.", show_default=False)
    ] = None,
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder with its data.")] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="The worker's name, which its token is of.")] = None,
    tls_dir: TlsDir = None,
    token_file: TokenFile = None,
) -> int:
    """Say why a worker cannot join: name, port, TLS and clocks, token, versions, job, one after another.

    To be run on the worker's machine with the worker's flags. It says hello as the worker would, and leaves again; the
    exit code is the one with which the worker would end.
    """
    check_address(server)
    wanted = name or f"doctor-{socket.gethostname()}"[:64]
    if not WORKER_NAME.fullmatch(wanted):
        raise UsageError(f"name is {wanted!r}: expected 1 to 64 of the characters A-Z a-z 0-9 . _ -")
    access = access_of(tls_dir, token_file)
    from paceline.worker.examination import Patient, examine

    code = 0
    for step in examine(Patient(server, wanted, access, job, data)):
        typer.echo(f"{step.name:<8} {_MARKS[step.well]:<6} {step.says}")
        code = code or step.exit_code
    if not code:
        typer.echo("nothing keeps this worker away")
    return code
