"""`paceline replay`: makes a past run's parameters again in one process, and says whether they are the same bits."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from paceline.cli.json_file import check_writable, write_json
from paceline.errors import RunFailedError

if TYPE_CHECKING:
    from paceline.server.past_run import PastRun
    from paceline.server.verdict import Judgement


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayCommand:
    """What `paceline replay` is told.

    Attributes:
        run: the directory of the run.
        job, data, device: other ones than the run's own.
        json_file: the verdict is written there too.
    """

    run: Path
    job: str | None
    data: Path | None
    device: str | None
    json_file: Path | None


def replay_and_report(command: ReplayCommand) -> int:
    """Replay a run and print the verdict; the exit code is 0 unless it differs."""
    if command.json_file:
        check_writable(command.json_file)
    from paceline.server.past_run import open_run
    from paceline.server.replay import Replay
    from paceline.server.verdict import Verdict, judge

    began = time.monotonic()
    with open_run(command.run) as run:
        replay = Replay(run, command.job, command.data, command.device)
        with _progress(run.rounds) as on_round:
            judgement = judge(run, replay, on_round)
        if command.json_file:
            write_json(command.json_file, document(run, judgement) | {"seconds": time.monotonic() - began})
        if judgement.difference is not None:
            sys.stderr.write(judgement.difference.traceback_text)
        sys.stdout.writelines(f"paceline: {line}\n" for line in lines(run, judgement))
    return RunFailedError.exit_code if judgement.verdict is Verdict.DIFFERS else 0


def lines(run: PastRun, judgement: Judgement) -> list[str]:
    """Write the verdict for people."""
    word, difference, tensors = judgement.verdict.value, judgement.difference, judgement.tensors
    stale = f", versions up to {run.staleness} behind" if run.staleness else ""
    counts = f"{judgement.rounds:,} rounds, {judgement.tasks:,} tasks{stale}"
    made = f"parameters have fingerprint {judgement.fingerprint}"
    if difference is None:
        return [f"{word}: {counts}; {made}", *judgement.remarks]
    told = [f"round {difference.round}: {difference.what}"]
    if judgement.rounds:
        told.append(f"bit-equal before it: {counts}")
    else:
        told.append("from the first round on: the job's code, torch or the hardware is not that of the run")
    if tensors:
        name = max(tensors, key=lambda name: tensors[name])
        bound = f"up to {judgement.tolerance:.1e} counts as close with fast sums"
        told.append(f"largest relative difference from the saved weights: {tensors[name]:.1e} ({name}); {bound}")
    return [f"{word}: {told[0]}", *told[1:], *judgement.remarks]


def document(run: PastRun, judgement: Judgement) -> dict[str, Any]:
    """Make the document of `--json`; docs/replay.md describes it."""
    found, settings = judgement.difference, run.beginning.settings
    difference = None
    if found is not None:
        difference = {
            "round": found.round,
            "what": found.what,
            "task": found.task.task if found.task else None,
            "worker": found.task.worker if found.task else None,
            "version": found.task.version if found.task else None,
            "recorded": found.recorded,
            "replayed": found.replayed,
        }
    tensors = judgement.tensors
    return {
        "verdict": judgement.verdict.value,
        "rounds": judgement.rounds,
        "tasks": judgement.tasks,
        "committed_rounds": run.rounds,
        "max_staleness": run.staleness,
        "fingerprint": judgement.fingerprint,
        "difference": difference,
        # JSON has no infinity.
        "tensors": tensors and {name: value if value < math.inf else None for name, value in tensors.items()},
        "tolerance": judgement.tolerance if settings.sums == "fast" else None,
        "remarks": list(judgement.remarks),
        "policy": settings.policy,
        "sums": settings.sums,
        "outcome": run.outcome.value if run.outcome else None,
    }


@contextmanager
def _progress(rounds: int) -> Iterator[Callable[[int], None]]:
    """Show on a terminal how far it is; elsewhere nothing."""
    console = Console(stderr=True)
    columns = (TextColumn("replay"), BarColumn(), MofNCompleteColumn(), TextColumn("rounds"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("replay", total=rounds)
        yield lambda number: progress.update(bar, completed=number)
