"""`paceline stop`, `drain`, `pause`, `resume` and `checkpoint now`: what an admin asks a server to do."""

from __future__ import annotations

from typing import Annotated

import typer

from paceline.access import Access
from paceline.cli.asking import Server, TlsDir, TokenFile, access_of, check_address
from paceline.durations import parse_duration

Name = Annotated[str, typer.Argument(metavar="NAME", help="The worker, as status shows it.", show_default=False)]

# An answer to stop or drain comes at once; a checkpoint is written first.
ANSWER_S = 10.0
CHECKPOINT_S = 600.0


def register_admin(app: typer.Typer) -> None:
    """Add stop, drain, pause and resume to the commands."""
    app.command("stop", epilog="Examples:\n\n  [bold]paceline stop 127.0.0.1:7070[/bold]\n\n"
                "  [bold]paceline stop main-node:7070 --grace 60s --token-file admin.token[/bold]")(stop)  # fmt: skip
    app.command("drain", epilog="Examples:\n\n  [bold]paceline drain main-node:7070 w3[/bold]")(drain)
    app.command("pause", epilog="Examples:\n\n  [bold]paceline pause main-node:7070 w3[/bold]")(pause)
    app.command("resume", epilog="Examples:\n\n  [bold]paceline resume main-node:7070 w3[/bold]")(resume)


def register_checkpoint_now(group: typer.Typer) -> None:
    """Add now to the commands of `paceline checkpoint`."""
    group.command("now", epilog="Examples:\n\n  [bold]paceline checkpoint now 127.0.0.1:7070[/bold]")(now)


def stop(
    server: Server,
    grace: Annotated[str, typer.Option(metavar="SPAN", help="The present round may take so long to close.")] = "10s",
    tls_dir: TlsDir = None,
    token_file: TokenFile = None,
) -> int:
    """End a run in order: its round is closed or abandoned, its state saved, its workers told.

    Needs an admin's token where the server asks for tokens.
    """
    check_address(server)
    grace_s = parse_duration(grace, "--grace")
    access = access_of(tls_dir, token_file)
    from paceline.server.asking import stop as ask

    ask(server, grace_s, ANSWER_S, access)
    typer.echo(f"{server} stops within {grace_s:g} s and saves its state")
    return 0


def drain(
    server: Server,
    name: Name,
    tls_dir: TlsDir = None,
    token_file: TokenFile = None,
) -> int:
    """Let a worker go: it finishes its present task, pushes what it has, and leaves.

    Needs an admin's token where the server asks for tokens.
    """
    check_address(server)
    access = access_of(tls_dir, token_file)
    from paceline.server.asking import drain as ask

    ask(server, name, ANSWER_S, access)
    typer.echo(f"worker {name} finishes its present task and leaves")
    return 0


def pause(server: Server, name: Name, tls_dir: TlsDir = None, token_file: TokenFile = None) -> int:
    """Give a worker no tasks until it is resumed, for an owner who wants the machine back for a while.

    It ends its share of the present round and then stays connected, idle, with the model in its memory; `drain` frees
    that too. Needs an admin's token where the server asks for tokens.
    """
    _pause(server, name, True, access_of(tls_dir, token_file))
    typer.echo(f"worker {name} ends what it has begun and is given nothing more: paceline resume {server} {name}")
    return 0


def resume(server: Server, name: Name, tls_dir: TlsDir = None, token_file: TokenFile = None) -> int:
    """Give a worker that was paused tasks again.

    Needs an admin's token where the server asks for tokens.
    """
    _pause(server, name, False, access_of(tls_dir, token_file))
    typer.echo(f"worker {name} may be given tasks again")
    return 0


def _pause(server: str, name: str, paused: bool, access: Access) -> None:
    check_address(server)
    from paceline.server.asking import pause as ask

    ask(server, name, paused, ANSWER_S, access)


def now(server: Server, tls_dir: TlsDir = None, token_file: TokenFile = None) -> int:
    """Have a server save a checkpoint at once.

    Needs an admin's token where the server asks for tokens.
    """
    check_address(server)
    access = access_of(tls_dir, token_file)
    from paceline.server.asking import checkpoint as ask

    version = ask(server, CHECKPOINT_S, access)
    typer.echo(f"saved a checkpoint of version {version}")
    return 0
