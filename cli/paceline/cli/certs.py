"""`paceline certs`: certificates for a server and its workers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from paceline.errors import UsageError

certs = typer.Typer(help="Make certificates for TLS between server and workers.", no_args_is_help=True)


@certs.command("init", epilog="Examples:\n\n  [bold]paceline certs init tls --host main-node --host 192.0.2.7[/bold]")
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="They are written there.", show_default=False)],
    host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="By which workers reach the server; once for each name.")
    ] = None,
    days: Annotated[str, typer.Option(metavar="N", help="They are valid so long.")] = "365",
) -> int:
    """Make a CA, a server's certificate and the workers' one, with their keys; no file is ever overwritten.

    The server needs ca.pem, server.pem and server.key; workers and people who ask need ca.pem, worker.pem and
    worker.key. Keep ca.key away from all of them.
    """
    from paceline.certificates import make_certificates

    if not days.isdecimal():
        raise UsageError(f"--days is {days!r}: expected a whole number")
    paths = make_certificates(folder, host or [], int(days))
    typer.echo(f"made {', '.join(path.name for path in paths)} in {folder}, valid for {days} days")
    typer.echo(
        "server: ca.pem, server.pem, server.key; workers: ca.pem, worker.pem, worker.key; keep ca.key to yourself"
    )
    return 0
