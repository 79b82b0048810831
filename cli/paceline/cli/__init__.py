"""The one command, `paceline`: reads what it is told, starts server and workers, and turns errors into lines and codes.

Nothing is decided here that another process could need; torch and grpc are imported only once a command needs them, so
that help texts and mistakes are fast.
"""

from __future__ import annotations

import os


def main() -> None:
    """Run the command of the command line and exit; the console script `paceline`."""
    # gRPC's own lines would stand between ours, and each handshake of a stranger that fails is one in the server's log.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    try:
        from paceline.cli.app import run_command_line

        code = run_command_line()
    except KeyboardInterrupt:  # While the command itself was being loaded.
        code = 130
    raise SystemExit(code)


__all__ = ["main"]
