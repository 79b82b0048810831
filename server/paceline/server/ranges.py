"""Task ids as compact text for the ledger: "0-5,9" is 0 to 5 and 9. The order is kept: "7,3-5" is 7, 3, 4, 5."""

from __future__ import annotations

from collections.abc import Iterable

from paceline.coordination.ids import TaskId


def format_ranges(tasks: Iterable[int]) -> str:
    """Write task ids as runs of ascending neighbours, in the order given; no ids give the empty text."""
    runs: list[list[int]] = []
    for task in tasks:
        if runs and task == runs[-1][1] + 1:
            runs[-1][1] = task
        else:
            runs.append([task, task])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def parse_ranges(text: str) -> tuple[TaskId, ...]:
    """Read what `format_ranges` wrote."""
    tasks: list[TaskId] = []
    for run in text.split(",") if text else ():
        first, _, last = run.partition("-")
        tasks.extend(map(TaskId, range(int(first), int(last or first) + 1)))
    return tuple(tasks)
