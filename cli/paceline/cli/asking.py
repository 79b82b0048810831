"""What commands that ask a server have in common: its address, certificates, a token."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from paceline.access import Access, read_access
from paceline.errors import UsageError
from paceline.settings import ADDRESS

Server = Annotated[str, typer.Argument(metavar="HOST:PORT", help="Where the server listens.", show_default=False)]
TlsDir = Annotated[
    Path | None, typer.Option("--tls-dir", metavar="DIR", help="The server speaks TLS: show the certificate there.")
]
TokenFile = Annotated[
    Path | None,
    typer.Option("--token-file", metavar="FILE", help="The token to show; else PACELINE_TOKEN, if it is set."),
]


def access_of(tls_dir: Path | None, token_file: Path | None, environ: Mapping[str, str] = os.environ) -> Access:
    """Read what a command shows to a server; PACELINE_TLS_DIR and PACELINE_TOKEN_FILE hold where no flag is given."""
    return read_access(
        tls_dir or _path(environ, "PACELINE_TLS_DIR"), token_file or _path(environ, "PACELINE_TOKEN_FILE"), environ
    )


def check_address(address: str) -> None:
    """See whether an address is one.

    Raises:
        UsageError: it is not HOST:PORT.
    """
    match = ADDRESS.fullmatch(address)
    if not match or not 1 <= int(match[2]) <= 65535:
        raise UsageError(f"server is {address!r}: expected HOST:PORT, with a port of 1 to 65535")


def _path(environ: Mapping[str, str], variable: str) -> Path | None:
    text = environ.get(variable)
    return Path(text) if text else None
