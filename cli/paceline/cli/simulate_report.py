"""What `paceline simulate` shows: the list of presets, how far it is, and the table at the end."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from paceline.coordination.policies import SINGLE_RESULT
from paceline.simulation.experiments.presets import PRESETS

CMAB_DOES = "combinatorial bandits that employ r of n workers: loss against employments and time, regret and its bound"


def list_of_presets() -> str:
    """Describe every preset in three lines."""
    lines = []
    for preset in PRESETS.values():
        size = f"{preset.workers} workers, {preset.tasks} tasks, {preset.rounds:,} rounds, law {preset.law}"
        lines += [f"{preset.name:<18} {preset.does}", f"{'':<18} {preset.reproduces}", f"{'':<18} {size}", ""]
    lines += [f"{'cmab':<18} {CMAB_DOES}", f"{'':<18} CMAB paper, its numerical results"]
    return "\n".join(lines)


class Watcher:
    """Shows progress on a terminal, and ends in order at the first Ctrl-C; the second one breaks off.

    Args:
        rounds: of all policies together.
    """

    def __init__(self, console: Console, rounds: int) -> None:
        self._interrupted = False
        self._policy, self._rounds, self._before = "", 0, 0
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._bar = self._progress.add_task("compiling", total=rounds)

    def __enter__(self) -> Watcher:
        self._handler = signal.signal(signal.SIGINT, self._interrupt)
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
        signal.signal(signal.SIGINT, self._handler)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = True

    def went_on(self, policy: str, rounds: int) -> None:
        """See Listener."""
        if policy != self._policy or rounds <= self._rounds:
            self._before += self._rounds
            self._policy = policy
        self._rounds = rounds
        self._progress.update(self._bar, description=policy, completed=self._before + rounds)

    def stopped(self) -> bool:
        """See Listener."""
        return self._interrupted


def table(document: Mapping[str, Any]) -> Table:
    """Draw the results, policies in rows."""
    head = f"{document['preset']}: {document['workers']} workers, {document['tasks']} tasks per round, "
    made = Table(title=f"{head}law {document['law']}, constants {document['constants']}", title_justify="left")
    made.add_column("policy")
    columns = ("rounds", "round s", "worker s", "work ratio", "runtime ratio", "average regret", "seconds")
    for name in columns:
        made.add_column(name, justify="right")
    for row in document["policies"]:
        prior = row.get("prior_rounds")
        made.add_row(
            row["policy"] if prior is None else f"{row['policy']}, prior {prior:,}",
            f"{row['rounds']:,}",
            *(_number(row, key) for key in ("mean_round_s", "mean_round_work_s", "work_ratio", "runtime_ratio")),
            _number(row, "average_regret"),
            f"{row['seconds']:.1f}",
        )
    return made


def _number(row: Mapping[str, Any], key: str) -> str:
    value, deviation = row[key], row.get("sd", {}).get(key)
    if value is None:
        return "-"
    return f"{value:.5g}" if deviation is None else f"{value:.5g} +- {deviation:.1g}"


def explanation(document: Mapping[str, Any]) -> list[str]:
    """Say what the table's columns are, and what came of it."""
    lines = [
        "round s, worker s: means per round; work ratio: greedy's worker seconds to the policy's;",
        "runtime ratio: the policy's run time to greedy's; seconds: what the simulation took",
    ]
    reached = {row["target_round"] for row in document["policies"] if row.get("target_round") is not None}
    if reached:
        lines.append(f"the shared loss curve reaches 1e-05 at round {min(reached):,.0f}")
    single = [row["policy"] for row in document["policies"] if row["policy"] in SINGLE_RESULT]
    if single:
        lines.append(f"a round of {' and '.join(single)} is one result: not comparable with rounds of many")
    if document["interrupted"]:
        lines.append("interrupted: the table has what was computed until then")
    return lines
