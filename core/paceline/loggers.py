"""Callbacks that keep a run's numbers where people look at them: a CSV file, TensorBoard, Weights & Biases, MLflow.

Each uses its own library, which is an extra: `pip install "paceline[tensorboard]"`.
"""

from __future__ import annotations

import csv
import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from paceline.callbacks import Callback, EndEvent, EvaluationEvent, RoundEvent, RunInfo
from paceline.errors import SettingsError

CSV_NAME = "rounds.csv"
_CSV_COLUMNS = ("round", "loss", "seconds", "elapsed_s", "samples", "tasks", "worker_s", "wasted_s")


class CsvLogger(Callback):
    """Writes `rounds.csv` and `evaluations.csv` into the run directory, a line each; goes on with a resumed run's."""

    def on_start(self, run: RunInfo) -> None:
        """See Callback."""
        self._folder = run.run_dir
        self._cut(self._folder / CSV_NAME, run.round)
        self._cut(self._folder / "evaluations.csv", run.round)

    def on_round(self, event: RoundEvent) -> None:
        """See Callback."""
        row = {name: getattr(event, name) for name in _CSV_COLUMNS}
        self._add(self._folder / CSV_NAME, row | dict(sorted(event.means.items())))

    def on_evaluation(self, event: EvaluationEvent) -> None:
        """See Callback."""
        row = {"round": event.round, "elapsed_s": event.elapsed_s, **event.metrics}
        self._add(self._folder / "evaluations.csv", row)

    @staticmethod
    def _add(path: Path, row: Mapping[str, Any]) -> None:
        fresh = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.writer(file)
            if fresh:
                writer.writerow(row)
            writer.writerow(row.values())

    @staticmethod
    def _cut(path: Path, last: int) -> None:
        """Drop the lines of rounds that will be done again."""
        if not path.exists():
            return
        with path.open(newline="") as file:
            head, *rows = list(csv.reader(file)) or [[]]
        aside = path.with_suffix(".tmp")
        with aside.open("w", newline="") as file:
            csv.writer(file).writerows([head, *(row for row in rows if int(row[0]) <= last)])
        aside.replace(path)


class TensorBoardLogger(Callback):
    """Writes events into `tensorboard` in the run directory; `tensorboard --logdir runs` shows all runs."""

    def __init__(self) -> None:
        _need("tensorboard", "tensorboard")

    def on_start(self, run: RunInfo) -> None:
        """See Callback."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(run.run_dir / "tensorboard"), purge_step=run.round + 1)

    def on_round(self, event: RoundEvent) -> None:
        """See Callback."""
        for name, value in _numbers(event).items():
            self._writer.add_scalar(name, value, event.round)

    def on_evaluation(self, event: EvaluationEvent) -> None:
        """See Callback."""
        for name, value in event.metrics.items():
            self._writer.add_scalar(f"evaluation/{name}", value, event.round)

    def on_end(self, event: EndEvent) -> None:
        """See Callback."""
        self._writer.close()


class WandbLogger(Callback):
    """Logs to Weights & Biases, project `paceline` unless WANDB_PROJECT says otherwise; WANDB_MODE=offline works."""

    def __init__(self) -> None:
        _need("wandb", "wandb")

    def on_start(self, run: RunInfo) -> None:
        """See Callback."""
        import wandb

        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "paceline"),
            name=run.run_dir.name,
            dir=str(run.run_dir),
            config=dict(run.settings),
        )
        # Evaluations come later than the round that they are of: with an axis of their own.
        self._run.define_metric("round")
        self._run.define_metric("*", step_metric="round")

    def on_round(self, event: RoundEvent) -> None:
        """See Callback."""
        self._run.log({"round": event.round, **_numbers(event)})

    def on_evaluation(self, event: EvaluationEvent) -> None:
        """See Callback."""
        self._run.log({"round": event.round, **{f"evaluation/{name}": v for name, v in event.metrics.items()}})

    def on_end(self, event: EndEvent) -> None:
        """See Callback."""
        self._run.summary["outcome"] = event.outcome
        self._run.finish(exit_code=0 if event.outcome == "done" else 1)


class MlflowLogger(Callback):
    """Logs to MLflow, where MLFLOW_TRACKING_URI says; experiment `paceline` unless MLFLOW_EXPERIMENT_NAME says else."""

    def __init__(self) -> None:
        _need("mlflow", "mlflow")

    def on_start(self, run: RunInfo) -> None:
        """See Callback."""
        import mlflow

        self._client: Any = mlflow.MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "paceline")
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found is not None else self._client.create_experiment(name)
        self._id: str = self._client.create_run(experiment, run_name=run.run_dir.name).info.run_id
        for key, value in run.settings.items():
            if value is not None:
                self._client.log_param(self._id, key, value)

    def on_round(self, event: RoundEvent) -> None:
        """See Callback."""
        self._log(_numbers(event), event.round)

    def on_evaluation(self, event: EvaluationEvent) -> None:
        """See Callback."""
        self._log({f"evaluation/{name}": value for name, value in event.metrics.items()}, event.round)

    def on_end(self, event: EndEvent) -> None:
        """See Callback."""
        self._client.set_terminated(self._id, "FINISHED" if event.outcome == "done" else "FAILED")

    def _log(self, numbers: Mapping[str, float], step: int) -> None:
        for name, value in numbers.items():
            self._client.log_metric(self._id, name, value, step=step)


LOGGERS: dict[str, Callable[[], Callback]] = {
    "csv": CsvLogger,
    "tensorboard": TensorBoardLogger,
    "wandb": WandbLogger,
    "mlflow": MlflowLogger,
}


def make_loggers(names: Sequence[str]) -> list[Callback]:
    """Make loggers by their names, which are some of LOGGERS.

    Raises:
        SettingsError: a library is not installed.
    """
    return [LOGGERS[name]() for name in names]


def _numbers(event: RoundEvent) -> dict[str, float]:
    shares = {f"tasks/{worker.name}": float(worker.tasks) for worker in event.workers}
    return (
        dict(event.means)
        | {
            "loss": event.loss,
            "round_s": event.seconds,
            "worker_s": event.worker_s,
            "wasted_s": event.wasted_s,
        }
        | shares
    )


def _need(module: str, extra: str) -> None:
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise SettingsError(
            f'--log {extra} needs a package that is not here: pip install "paceline[{extra}]"'
        ) from error
