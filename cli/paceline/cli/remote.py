"""The commands that are one process: `paceline server`, `worker` and `status`."""

from __future__ import annotations

import json
import sys

from paceline.access import Access
from paceline.cli.asking import check_address
from paceline.cli.commands import ServerCommand, WorkerCommand
from paceline.cli.exit_codes import of_run
from paceline.cli.json_file import check_writable, write_json


def serve(command: ServerCommand) -> int:
    """Run a server to its end."""
    if command.json_file:
        check_writable(command.json_file)
    from paceline.server import run_server
    from paceline.server.log import configure_logging

    configure_logging()
    result = run_server(command.run_settings(), command.resume)
    if command.json_file:
        write_json(command.json_file, result.summary)
    return of_run(result.outcome.value, try_again=result.try_again, signal=result.signal)


def work(command: WorkerCommand) -> int:
    """Run a worker to its end."""
    from paceline.worker import run_worker

    return run_worker(command.worker_settings())


def show_status(address: str, as_json: bool, timeout_s: float, access: Access) -> int:
    """Ask a server once and print what it says.

    Raises:
        UsageError: the address is none.
        UnavailableError: nobody answers there.
        RefusedError: the server does not tell this asker.
    """
    check_address(address)
    from paceline.server.status import fetch_status, render_status, status_to_dict

    status = fetch_status(address, timeout_s, access)
    if as_json:
        json.dump(status_to_dict(status), sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        from rich.console import Console

        console = Console()
        if not console.is_terminal:
            # A pipe has no width of its own; the table needs this much.
            console = Console(width=120)
        console.print(render_status(status))
    return 0
