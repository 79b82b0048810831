"""Runs the command on a pseudo terminal of a given size, and keeps what it writes."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

from tests.system.cluster import ROOT, environment

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class OnTerminal:
    """A command on a terminal of its own.

    Attributes:
        output: what it has written so far.
    """

    def __init__(self, columns: int, *args: str, no_color: bool = False) -> None:
        self.output = ""
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        clean = {name: value for name, value in environment().items() if name not in ("COLUMNS", "NO_COLOR")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "paceline.cli", *args],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=clean | {"TERM": "xterm-256color"} | ({"NO_COLOR": "1"} if no_color else {}),
            cwd=ROOT,
            start_new_session=True,
        )
        os.close(slave)

    def read(self, until: Callable[[], bool] = lambda: False, patience_s: float = 120.0) -> None:
        """Read until something is so, or to the end."""
        deadline = time.monotonic() + patience_s
        while not until():
            assert time.monotonic() < deadline, f"nothing of what was waited for:\n{self.output}"
            if not select.select([self._master], [], [], 0.005)[0]:
                continue
            try:
                piece = os.read(self._master, 1 << 16)
            except OSError:  # the other end is closed
                return
            if not piece:
                return
            self.output += piece.decode(errors="replace")

    def end(self) -> int:
        """Read to its end and give its exit code; leaves nothing behind."""
        try:
            self.read()
            return self.process.wait(30)
        finally:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
            os.close(self._master)

    def maps(self, library: str) -> bool:
        """Tell whether the process has loaded a library, or has ended."""
        try:
            return library in Path(f"/proc/{self.process.pid}/maps").read_text()
        except OSError:
            return True

    def children(self) -> int:
        """Count its child processes."""
        try:
            return len(Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split())
        except OSError:
            return 99
