"""Shows how a run goes while it runs: a table that redraws itself on a terminal, a line now and then elsewhere.

Both are fed with what the Status call answers, as a document (`paceline status --json` prints the same).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.text import Text

Status = Mapping[str, Any]

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

    def show(self, status: Status, picture: RenderableType) -> None:
        """Show the newest status, as a document and as `paceline status` draws it."""
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

    def show(self, status: Status, picture: RenderableType) -> None:
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
        self._console.print(escape(line), highlight=False)

    def show(self, status: Status, picture: RenderableType) -> None:
        """See Progress."""
        self._live.update(draw(status, picture, self._rate.update(status), self._title))

    def close(self) -> None:
        """See Progress."""
        self._live.stop()


class Rate:
    """Rounds per second over the last few seconds."""

    def __init__(self, over_s: float = 5.0) -> None:
        self._over_s = over_s
        self._seen: list[tuple[float, int]] = []

    def update(self, status: Status) -> float:
        """Take the newest status in and give the rate; 0 while nothing is known."""
        now_s, version = time.monotonic(), int(status["version"])
        if not version:
            return 0.0  # The wait for workers is no part of it.
        self._seen = [seen for seen in self._seen if now_s - seen[0] <= self._over_s][-100:] or self._seen[-1:]
        self._seen.append((now_s, version))
        (first_s, first), (last_s, last) = self._seen[0], self._seen[-1]
        return (last - first) / (last_s - first_s) if last_s > first_s else 0.0


def headline(status: Status, rounds_per_s: float) -> str:
    """Say in one line how a run goes."""
    if status["state"] == "waiting" or not status["version"]:
        return str(status["situation"] or status["state"])
    parts = [f"round {status['version']}" + (f" of {status['rounds']}" if status["rounds"] else "")]
    if rounds_per_s:
        parts.append(f"{rounds_per_s:.1f} rounds/s")
    if status.get("loss") is not None:
        parts.append(f"loss {status['loss']:.4f}")
    for shown in (status.get("means") or {}, status["metrics"]):
        parts += [f"{name} {value:.4g}" for name, value in sorted(shown.items()) if value is not None]
    return ", ".join(parts)


def draw(status: Status, picture: RenderableType, rounds_per_s: float, title: str = "") -> RenderableType:
    """Draw a run: how fast it is, a bar where the end is known, and the picture that `paceline status` shows."""
    head = Text(f"{title}  " if title else "", style="bold")
    head.append(headline(status, rounds_per_s), style="not bold")
    total, done = status["rounds"], status["version"]
    # A bar alone ends no line.
    bar = [Padding(ProgressBar(total=total, completed=min(done, total), width=60), 0)] if total else []
    return Group(head, *bar, picture)
