"""The one command, `paceline`: reads what it is told, starts server and workers, and turns errors into lines and codes.

Nothing is decided here that another process could need; torch and grpc are imported only once a command needs them, so
that help texts and mistakes are fast.
"""

from __future__ import annotations


def main() -> None:
    """Run the command of the command line and exit; the console script `paceline`."""
    from paceline.cli.app import run_command_line

    raise SystemExit(run_command_line())


__all__ = ["main"]
