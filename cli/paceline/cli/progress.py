"""Shows how a run goes while it runs: a table that redraws itself on a terminal, a line now and then elsewhere.

Both are fed with what the Status call answers, as a document (`paceline status --json` prints the same).
"""

from __future__ import annotations

import time
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from paceline.cli.picture import Pace, Room, Status, draw, headline

# A line every so many seconds where nobody watches a table.
LINE_EVERY_S = 5.0


class Progress(Protocol):
    """Where a run is shown.

    Attributes:
        every_s: how often it wants a new status.
    """

    every_s: float

    def note(self, line: str) -> None:
        """Show a line that stays."""
        ...

    def show(self, status: Status) -> None:
        """Show the newest status."""
        ...

    def close(self) -> None:
        """Stop drawing; the terminal is as it was."""
        ...


def make_progress(console: Console, title: str = "") -> Progress:
    """Choose how to show a run on this console."""
    return LiveProgress(console, title) if console.is_terminal else LineProgress(console, title)


class LineProgress:
    """Plain lines: for files, pipes and logs."""

    every_s = LINE_EVERY_S

    def __init__(self, console: Console, title: str = "") -> None:
        self._console = console
        self._title = f"{title}: " if title else ""
        self._rate = Rate()

    def note(self, line: str) -> None:
        """See Progress."""
        self._console.out(line, highlight=False)

    def show(self, status: Status) -> None:
        """See Progress."""
        self._console.out(self._title + headline(status, self._rate.update(status)), highlight=False)

    def close(self) -> None:
        """See Progress."""


class LiveProgress:
    """A table that redraws itself."""

    every_s = 0.25

    def __init__(self, console: Console, title: str = "") -> None:
        self._console = console
        self._title = title
        self._rate = Rate()
        self._live = Live(Text("starting ..."), console=console, refresh_per_second=8, transient=True)
        self._live.start()

    def note(self, line: str) -> None:
        """See Progress."""
        # Broken by the terminal alone, so that a command in it can be copied whole.
        self._console.print(escape(line), highlight=False, soft_wrap=True)

    def show(self, status: Status) -> None:
        """See Progress."""
        room = Room(self._console.width, self._console.height)
        self._live.update(draw(status, self._rate.update(status), room, self._title))

    def close(self) -> None:
        """See Progress."""
        self._live.stop()


class Rate:
    """Rounds and samples per second over the last few seconds."""

    def __init__(self, over_s: float = 5.0) -> None:
        self._over_s = over_s
        self._seen: list[tuple[float, int, int]] = []

    def update(self, status: Status) -> Pace:
        """Take the newest status in and give the pace."""
        now_s, version = time.monotonic(), int(status["version"])
        if not version:
            return Pace()  # The wait for workers is no part of it.
        samples = int(status.get("tasks_used") or 0) * int(status.get("micro_batch") or 0)
        self._seen = [seen for seen in self._seen if now_s - seen[0] <= self._over_s][-100:] or self._seen[-1:]
        self._seen.append((now_s, version, samples))
        (first_s, *first), (last_s, *last) = self._seen[0], self._seen[-1]
        if last_s <= first_s:
            return Pace()
        rounds, done = ((end - begin) / (last_s - first_s) for begin, end in zip(first, last, strict=True))
        return Pace(rounds, done)
