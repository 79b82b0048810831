"""Writes a run to MLflow; MLFLOW_TRACKING_URI and its other variables hold as everywhere."""

from __future__ import annotations

import importlib.util
import math
import time
from typing import Any

from paceline.callbacks import Callback, EndEvent, EvaluationEvent, RoundEvent, StartEvent, run_folder
from paceline.errors import UsageError
from paceline.extras import needed
from paceline.loggers.scalars import of_round, plain

ID_FILE = "mlflow-id"
# MLflow takes so many parameters, and characters of a value, at most.
_PARAMS, _VALUE = 100, 500
_STATES = {"done": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


class MlflowLogger(Callback):
    """One run there for each run directory: a resumed run goes on with it.

    Args:
        tracking_uri: None: MLflow's own choice.
        experiment: its name.

    Raises:
        UsageError: mlflow (or mlflow-skinny) is not installed, or cannot write where it is to.
    """

    def __init__(self, tracking_uri: str | None = None, experiment: str = "paceline") -> None:
        self._mlflow = needed("mlflow", "mlflow", "the mlflow logger")
        self._metric = needed("mlflow.entities", "mlflow", "the mlflow logger").Metric
        self._tracking_uri, self._experiment = tracking_uri, experiment
        uri = tracking_uri or self._mlflow.get_tracking_uri()
        # The small mlflow of the extra has no database of its own, and says so in a way that nobody understands.
        if uri.startswith("sqlite:") and importlib.util.find_spec("sqlalchemy") is None:
            raise UsageError(
                f"the mlflow logger is to write into {uri!r}, for which mlflow-skinny has no code: expected"
                " MLFLOW_TRACKING_URI to be a server's, http://..., or pip install mlflow"
            )
        self._id = ""

    def on_start(self, event: StartEvent) -> None:
        """See Callback."""
        # A client of its own: nothing of what the process has set for mlflow changes.
        self._client = client = self._mlflow.MlflowClient(tracking_uri=self._tracking_uri)
        kept = run_folder(event, ID_FILE)
        if kept.is_file():
            self._id = kept.read_text(encoding="utf-8").strip()
            client.update_run(self._id, status="RUNNING")
            return
        found = client.get_experiment_by_name(self._experiment)
        experiment = found.experiment_id if found is not None else client.create_experiment(self._experiment)
        self._id = client.create_run(experiment, tags={"paceline.run_dir": event.run_dir}).info.run_id
        kept.write_text(f"{self._id}\n", encoding="utf-8")
        for name, value in list(plain(event.settings).items())[:_PARAMS]:
            client.log_param(self._id, name, str(value)[:_VALUE])

    def on_round(self, event: RoundEvent) -> None:
        """See Callback."""
        self._log(of_round(event), event.round)

    def on_evaluation(self, event: EvaluationEvent) -> None:
        """See Callback."""
        self._log({f"eval/{name}": value for name, value in event.metrics.items()}, event.round)

    def on_end(self, event: EndEvent) -> None:
        """See Callback."""
        self._client.set_terminated(self._id, status=_STATES[event.outcome])

    def _log(self, scalars: dict[str, float], step: int) -> None:
        now_ms = int(time.time() * 1000)
        entries: list[Any] = [
            self._metric(name, value, now_ms, step) for name, value in scalars.items() if math.isfinite(value)
        ]
        self._client.log_batch(self._id, metrics=entries)
