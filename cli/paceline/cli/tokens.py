"""`paceline token`: who may join a run, see it, or rule it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from paceline.durations import parse_duration
from paceline.errors import UsageError

token = typer.Typer(help="Make, list and revoke the tokens that a server asks for.", no_args_is_help=True)

Tokens = Annotated[
    Path, typer.Option("--tokens", metavar="FILE", help="The server's file of tokens.", show_default=False)
]


@token.command("create", epilog="Examples:\n\n  [bold]paceline token create --tokens tokens.json --name w1 > w1.token"
               "[/bold]\n\n  [bold]paceline token create --tokens tokens.json --name ann --role admin --expires 24h"
               "[/bold]")  # fmt: skip
def create(
    tokens: Tokens,
    name: Annotated[
        str, typer.Option(metavar="NAME", help="The worker that may use it, or who has it.", show_default=False)
    ],
    role: Annotated[
        str, typer.Option(metavar="worker|viewer|admin", help="worker joins, viewer sees, admin does everything.")
    ] = "worker",
    expires: Annotated[
        str | None, typer.Option(metavar="SPAN", help="It is good so long. [dim](default: for ever)[/dim]")
    ] = None,
) -> int:
    """Make a token and print it: the only time that it is seen. FILE keeps a checksum of it.

    Give it to its worker in a file that nobody else reads, with --token-file, or as PACELINE_TOKEN.
    """
    from paceline.nearest import did_you_mean
    from paceline.tokens import Role, create_token

    names = [one.value for one in Role]
    if role not in names:
        raise UsageError(f"--role is {role!r}: expected one of {', '.join(names)}{did_you_mean(role, names)}")
    made = create_token(tokens, name, Role(role), None if expires is None else parse_duration(expires, "--expires"))
    typer.echo(made)
    sys.stderr.write(f"paceline: made a token of role {role} for {name}; it is not shown again\n")
    return 0


@token.command("ls")
def ls(tokens: Tokens) -> int:
    """List the tokens, without their secrets."""
    from paceline.tokens import now_utc, read_tokens

    now = now_utc()
    rows = [("id", "name", "role", "created", "state")]
    for one in read_tokens(tokens):
        until = f"good until {one.expires:%Y-%m-%d %H:%M} UTC" if one.expires else "good"
        state = "revoked" if one.revoked else "expired" if one.fault(now) else until
        rows.append((one.id, one.name, one.role.value, f"{one.created:%Y-%m-%d %H:%M}", state))
    wide = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        typer.echo("  ".join([*(text.ljust(width) for text, width in zip(row, wide, strict=False)), row[4]]))
    return 0


@token.command("revoke")
def revoke(
    tokens: Tokens,
    which: Annotated[str, typer.Argument(metavar="ID|NAME", help="One token, or all of a name.", show_default=False)],
) -> int:
    """Revoke a token: a server that runs sends whoever joined with it away within a second or two."""
    from paceline.tokens import revoke_tokens

    hit = revoke_tokens(tokens, which)
    if not hit:
        typer.echo(f"{which} had no token that was good")
    for one in hit:
        typer.echo(f"revoked token {one.id} of {one.name}, role {one.role.value}")
    return 0
