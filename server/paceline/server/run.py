"""Runs a server in a process of its own, with the signals that end it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable

from paceline.server.address import check_free, parse_bind
from paceline.server.app import RunResult, Server
from paceline.server.preparation import prepare
from paceline.settings import RunSettings

# timeout(1), terminals and parents that pass signals on send one twice, within moments.
SAME_SIGNAL_S = 0.5


def run_server(settings: RunSettings, *, on_started: Callable[[str], None] | None = None) -> RunResult:
    """Serve one run to its end; to be called in the main thread.

    The first SIGINT or SIGTERM ends the run with its state saved, a second one ends the process.

    Args:
        on_started: told the real address, once workers may come.

    Raises:
        UsageError, SettingsError: nothing was started.
        PacelineError: the run's state could not be saved, or a bug.
    """
    check_free(parse_bind(settings.bind, insecure=settings.insecure))
    # Before the event loop: loading data may take long, and Ctrl-C must end it.
    prepared = prepare(settings)

    async def main() -> RunResult:
        server = Server(settings, prepared)

        def started(address: str) -> None:
            _take_signals(server)
            if on_started is not None:
                on_started(address)

        return await server.run(started)

    return asyncio.run(main())


def _take_signals(server: Server) -> None:
    first_s: float | None = None

    def take(number: signal.Signals) -> None:
        nonlocal first_s
        now_s = asyncio.get_running_loop().time()
        if first_s is not None and now_s - first_s < SAME_SIGNAL_S:
            return
        if first_s is not None:
            sys.stderr.write(f"{number.name} again: quitting without saving\n")
            sys.stderr.flush()
            os._exit(128 + number)
        first_s = now_s
        server.interrupt(f"interrupted by {number.name}")

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, take, number)
