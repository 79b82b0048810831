"""Runs a server in a process of its own, with the signals that end it."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from paceline.callbacks import Callback
from paceline.server.app import OnStarted, RunResult, Server, Started, make_server
from paceline.settings import RunSettings

# timeout(1), terminals and parents that pass signals on send one twice, within moments.
SAME_SIGNAL_S = 0.5


def run_server(
    settings: RunSettings,
    resume: Path | None = None,
    *,
    on_started: OnStarted | None = None,
    callbacks: Sequence[Callback] = (),
) -> RunResult:
    """Serve one run to its end; to be called in the main thread.

    The first SIGINT or SIGTERM ends the run with its state saved: SIGINT at once, SIGTERM when the round has closed or
    its grace is over. A second one ends the process.

    Args:
        resume: directory of the run to go on with.
        on_started: called once workers may come.
        callbacks: hear how the run goes, each event in a thread of theirs.

    Raises:
        NothingToResume: the run to go on with is done.
        UsageError, SettingsError, CheckpointError: nothing was started.
        PacelineError: the run's state could not be saved, or a bug.
    """
    # Before the event loop: loading data may take long, and Ctrl-C must end it.
    server = make_server(settings, resume, callbacks)

    async def main() -> RunResult:
        signals = _Signals(server, settings.grace_s)

        def started(what: Started) -> None:
            signals.take()
            if on_started is not None:
                on_started(what)

        result = await server.run(started)
        return dataclasses.replace(result, signal=signals.first)

    return asyncio.run(main())


class _Signals:
    """Ends a server in order at the first signal, and the process at the second; `first` is 0 before."""

    def __init__(self, server: Server, grace_s: float) -> None:
        self.first = 0
        self._server = server
        self._grace_s = grace_s
        self._first_s = 0.0

    def take(self) -> None:
        """Begin, in the running loop."""
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._hear, number)

    def _hear(self, number: signal.Signals) -> None:
        now_s = asyncio.get_running_loop().time()
        if not self.first:
            self.first, self._first_s = number, now_s
            grace_s = self._grace_s if number == signal.SIGTERM else 0.0
            self._server.stop(f"stopped by {number.name}", grace_s)
        elif now_s - self._first_s >= SAME_SIGNAL_S:
            sys.stderr.write(f"{number.name} again: quitting without saving\n")
            sys.stderr.flush()
            os._exit(128 + number)
