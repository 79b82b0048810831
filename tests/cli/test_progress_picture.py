"""The picture of a run in progress: each part on lines of its own."""

from __future__ import annotations

import io

from rich.console import Console
from rich.text import Text

from paceline.cli.progress import draw

STATUS = {"state": "training", "version": 5, "rounds": 10, "situation": "", "loss": 0.5, "metrics": {"accuracy": 0.9}}


def test_the_table_begins_a_line_of_its_own_below_the_bar() -> None:
    drawn = io.StringIO()
    Console(file=drawn, width=80, force_terminal=True, color_system=None).print(draw(STATUS, Text("the table"), 3.0))
    head, bar, table = drawn.getvalue().splitlines()
    assert head.startswith("round 5 of 10, 3.0 rounds/s, loss 0.5000, accuracy 0.9")
    assert set(bar.strip()) <= set("━╸╺ ")
    assert table.strip() == "the table"
