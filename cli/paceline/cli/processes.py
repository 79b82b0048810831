"""Starts the child processes of `paceline run`, listens to them, and leaves none behind."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import IO, Any

from paceline.cli.child import Role
from paceline.log_format import FORMAT_VARIABLE

Report = dict[str, Any]
TAIL_LINES = 60


def of_child(environ: Mapping[str, str]) -> dict[str, str]:
    """Give the environment of a process whose lines people are shown, and which is no rank of its parent's torchrun."""
    kept = {name: value for name, value in environ.items() if not name.startswith("TORCHELASTIC_")}
    return {**kept, FORMAT_VARIABLE: "text"}


class Child:
    """One process in a session of its own.

    Args:
        role: what it is.
        name: how lines about it begin.
        heard: is given each line of its standard output, and a server's standard error (on a thread of the child's).
        told: is given each event of a server's (on another of these threads).
    """

    def __init__(
        self, role: Role, name: str, heard: Callable[[str], None], told: Callable[[Report], None] | None = None
    ) -> None:
        self.name = name
        self._told = told
        self.reports: queue.SimpleQueue[Report] = queue.SimpleQueue()
        # What a worker said on standard error: shown when it ends badly, since N workers say the same thing N times.
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._listeners: list[threading.Thread] = []
        ours, theirs = os.pipe()
        command = [sys.executable, "-P", "-m", "paceline.cli.child", role, str(os.getpid()), str(theirs)]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,
                env=of_child(os.environ),
                pass_fds=(theirs,),
            )
        finally:
            os.close(theirs)
        self._listen(os.fdopen(ours, encoding="utf-8"), self._take)
        self._listen(self._process.stdout, heard)
        self._listen(self._process.stderr, heard if role == "server" else self._tail.append)

    @property
    def pid(self) -> int:
        """Process id, which is its group's too."""
        return self._process.pid

    def tell(self, settings_json: str) -> None:
        """Hand over the settings that it waits for."""
        assert self._process.stdin is not None  # a pipe, see above
        try:
            self._process.stdin.write(settings_json + "\n")
            self._process.stdin.close()
        except BrokenPipeError:
            pass  # It has ended; whoever polls it sees why.

    def poll(self) -> int | None:
        """Give its exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def send(self, number: signal.Signals) -> None:
        """Send a signal to it and to whatever it started."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            pass

    def interrupt(self) -> None:
        """Ask it alone to stop."""
        self._process.send_signal(signal.SIGINT)

    def wait(self, timeout_s: float) -> int | None:
        """Wait for its end; None: it has not ended."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def last_words(self) -> list[str]:
        """Give the last lines on standard error of a worker that has ended."""
        for listener in self._listeners:
            # What it started may hold its pipes open.
            listener.join(timeout=1.0)
        return list(self._tail)

    def end(self) -> None:
        """Kill it and what it started, and hear it out."""
        # Also when it has ended by itself: its own children (data loaders) may still be there.
        self.send(signal.SIGKILL)
        self._process.wait()
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
        for listener in self._listeners:
            listener.join()

    def _take(self, line: str) -> None:
        report = json.loads(line)
        if "event" not in report:
            self.reports.put(report)
        elif self._told is not None:
            self._told(report["event"])

    def _listen(self, stream: IO[str] | None, heard: Callable[[str], object]) -> None:
        assert stream is not None  # a pipe, see above

        def read() -> None:
            with stream:
                for line in stream:
                    heard(line.rstrip("\n"))

        listener = threading.Thread(target=read, name=f"listen-{self.name}", daemon=True)
        listener.start()
        self._listeners.append(listener)


def describe_exit(code: int) -> str:
    """Say in words how a process ended."""
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
