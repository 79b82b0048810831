"""Writes rounds and evaluations as two CSV files, a row each, which any table program opens."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TextIO

from paceline.callbacks import Callback, EndEvent, EvaluationEvent, RoundEvent, StartEvent, run_folder

ROUNDS = ("round", "loss", "seconds", "at_s", "tasks", "samples", "wasted_tasks", "worker_s", "wasted_worker_s")


class CsvLogger(Callback):
    """Keeps `rounds.csv` and `evaluations.csv`; rows are on the disk when they are written.

    A run that goes on from a checkpoint loses the rows after it, which are written again.

    Args:
        folder: None: that of the run.
    """

    def __init__(self, folder: Path | str | None = None) -> None:
        self._folder = None if folder is None else Path(folder)
        self._files: list[TextIO] = []
        self._names: tuple[str, ...] = ()

    def on_start(self, event: StartEvent) -> None:
        """See Callback."""
        self._at = folder = self._folder or run_folder(event, "csv")
        folder.mkdir(parents=True, exist_ok=True)
        # Which means there are is known with the first round, and which metrics with the first evaluation.
        self._from_round = event.round
        self._means: tuple[str, ...] = ()
        self._rounds: TextIO | None = None
        self._evaluations: TextIO | None = None

    def on_round(self, event: RoundEvent) -> None:
        """See Callback."""
        shares = event.workers.values()
        wasted_s = sum(share.wasted_s for share in shares)
        worker_s = wasted_s + sum(share.used_s for share in shares)
        wasted = sum(share.wasted for share in shares)
        row = (event.round, event.loss, event.seconds, event.at_s, event.tasks, event.samples, wasted)
        if self._rounds is None:
            self._means = tuple(sorted(event.means))
            self._rounds = self._open("rounds.csv", (*ROUNDS, *self._means), self._from_round)
        means = [event.means.get(name, "") for name in self._means]
        csv.writer(self._rounds).writerow((*row, worker_s, wasted_s, *means))
        self._rounds.flush()

    def on_evaluation(self, event: EvaluationEvent) -> None:
        """See Callback."""
        if self._evaluations is None:
            self._names = tuple(sorted(event.metrics))
            self._evaluations = self._open("evaluations.csv", ("round", *self._names), self._from_round)
        values = [event.metrics.get(name, "") for name in self._names]
        csv.writer(self._evaluations).writerow((event.round, *values))
        self._evaluations.flush()

    def on_end(self, event: EndEvent) -> None:
        """See Callback."""
        for file in self._files:
            file.close()

    def _open(self, name: str, heading: Sequence[str], last_round: int) -> TextIO:
        path = self._at / name
        kept = _rows_until(path, last_round) if last_round else []
        file = path.open("w", newline="", encoding="utf-8")
        self._files.append(file)
        csv.writer(file).writerows([heading, *kept])
        return file


def _rows_until(path: Path, last_round: int) -> Iterable[list[str]]:
    """Give the rows of a file up to a round, without its heading."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in list(csv.reader(file))[1:] if row and row[0].isdecimal() and int(row[0]) <= last_round]
