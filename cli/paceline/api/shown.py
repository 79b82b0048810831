"""Where `paceline.train` shows a run: terminal and files as the command does, in a notebook below the cell."""

from __future__ import annotations

import html
import importlib
import io
import time
from typing import Any

from rich.console import Console

from paceline.cli.picture import Room, Status, draw
from paceline.cli.progress import Progress, Rate, make_progress

_WIDTH, _HEIGHT = 110, 40
_STYLE = "line-height: 1.2; white-space: pre; font-family: monospace"


def make_shown(wanted: bool) -> Progress:
    """Choose how to show a run here."""
    if not wanted:
        return Silent()
    console = Console(stderr=True)
    return NotebookProgress() if console.is_jupyter else make_progress(console)


class Silent:
    """Shows nothing."""

    every_s = 5.0

    def note(self, line: str) -> None:
        """See Progress."""

    def show(self, status: Status) -> None:
        """See Progress."""

    def close(self) -> None:
        """See Progress."""


class NotebookProgress:
    """One output below the cell that is drawn anew: notes, and the picture of the run.

    rich's own way to do so needs ipywidgets; this needs nothing but the notebook.
    """

    every_s = 0.5

    def __init__(self) -> None:
        self._display = importlib.import_module("IPython.display")
        self._rate = Rate()
        self._notes: list[str] = []
        self._picture = ""
        self._output = self._display.display(self._html("starting ..."), display_id=True)
        self._drawn_s = time.monotonic()

    def note(self, line: str) -> None:
        """See Progress."""
        # Heard on other threads too, whose output a notebook would show below whatever cell is there.
        self._notes.append(line)

    def show(self, status: Status) -> None:
        """See Progress."""
        console = Console(file=io.StringIO(), width=_WIDTH, force_jupyter=False, force_terminal=False)
        with console.capture() as drawn:
            console.print(draw(status, self._rate.update(status), Room(_WIDTH, _HEIGHT)))
        self._picture = drawn.get()
        self._redraw()

    def close(self) -> None:
        """See Progress."""
        self._redraw()

    def _redraw(self) -> None:
        self._output.update(self._html("\n".join([*self._notes, self._picture])))

    def _html(self, text: str) -> Any:
        return self._display.HTML(f'<pre style="{_STYLE}">{html.escape(text)}</pre>')
