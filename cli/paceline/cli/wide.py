"""Prints tables of results."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table


def print_wide(results: Table, lines: Sequence[str]) -> None:
    """Print a table and lines below it; where nobody watches, wide enough that every row is one line."""
    console = Console()
    wide = console if console.is_terminal else Console(width=160)
    wide.print(results)
    for line in lines:
        wide.out(line, highlight=False)
