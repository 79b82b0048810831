"""What `paceline.train` gives: how the run went, as columns, and where its model is."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from paceline.api.loading import load
from paceline.errors import UsageError
from paceline.server.past_run import open_run

Columns = dict[str, list[Any]]
ROUND_COLUMNS = (
    "round", "loss", "seconds", "at_s", "tasks", "samples", "wasted_tasks", "worker_s", "wasted_worker_s",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Result:
    """A run that is over.

    Attributes:
        outcome: done or stopped; a run that failed raises instead.
        reason: why it ended, in a line.
        run_dir: its directory.
        summary: the document of `paceline run --json`; docs/run-json.md tells its fields.
        history: columns with a value for each round: round, loss, seconds, at_s, tasks, samples, wasted_tasks, worker_s
            and wasted_worker_s (of all workers), one for each mean that the job's loss gives, and one for each metric,
            None where it was not measured. Metrics measured before a run was resumed are not in it.
    """

    outcome: str
    reason: str
    run_dir: Path
    summary: Mapping[str, Any]
    history: Columns = field(repr=False)

    @property
    def metrics(self) -> dict[str, float | None]:
        """Give the metrics of the last evaluation; None for one that is no number."""
        return dict(self.summary["metrics"])

    def to_pandas(self) -> Any:
        """Give the history as a pandas DataFrame, indexed by round.

        Raises:
            UsageError: pandas is not installed.
        """
        try:
            pandas = importlib.import_module("pandas")
        except ImportError as error:
            raise UsageError("to_pandas() needs pandas: pip install 'paceline[pandas]'") from error
        return pandas.DataFrame(self.history).set_index("round")

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Read the model's weights and buffers, as `module.load_state_dict` takes them (tied ones are there once)."""
        return load_file(self.run_dir / "model.safetensors")

    def model(self) -> torch.nn.Module:
        """Build the trained model; see `paceline.load`."""
        return load(self.run_dir)

    def __repr__(self) -> str:
        metrics = "".join(f", {name} {value:.4g}" for name, value in self.metrics.items() if value is not None)
        rounds, losses = len(self.history["round"]), self.history["loss"]
        loss = f", loss {losses[-1]:.4g}" if losses else ""
        return f"Result({self.outcome}: {self.reason}; {rounds} rounds{loss}{metrics}; {str(self.run_dir)!r})"


def read_history(run_dir: Path) -> Columns:
    """Read the committed rounds of a run as columns, with the metrics of the versions that were measured.

    Raises:
        UsageError: the ledger cannot be read.
    """
    rows: list[tuple[Any, ...]] = []
    means: list[dict[str, float]] = []
    with open_run(run_dir) as run:
        evaluations = run.evaluations
        for record, _ in run.each_round():
            worker_s = sum(worker.used_s + worker.wasted_s for worker in record.workers)
            wasted_s = sum(worker.wasted_s for worker in record.workers)
            wasted = sum(worker.wasted for worker in record.workers)
            closed_s = record.opened_s + record.seconds
            row = (record.round, record.loss, record.seconds, closed_s, record.tasks_used, record.samples)
            rows.append((*row, wasted, worker_s, wasted_s))
            means.append(dict(record.means))
    columns: Columns = {name: [row[place] for row in rows] for place, name in enumerate(ROUND_COLUMNS)}
    for name in sorted({name for row in means for name in row}):
        columns[name] = [row.get(name) for row in means]
    place = {number: index for index, number in enumerate(columns["round"])}
    for number, metrics in evaluations.items():
        for name, value in metrics.items():
            # A metric may be called as another column is.
            taken = name in ROUND_COLUMNS or any(name in row for row in means)
            column = columns.setdefault(f"eval_{name}" if taken else name, [None] * len(rows))
            if number in place:
                column[place[number]] = value
    return columns
