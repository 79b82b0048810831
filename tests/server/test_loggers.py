"""Loggers write what happened where their own libraries find it again; each library is an extra."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from paceline.callbacks import Callback, EndEvent, EvaluationEvent, RunInfo, tell
from paceline.errors import SettingsError
from paceline.loggers import LOGGERS, CsvLogger, make_loggers
from paceline.server.listeners import Listeners
from paceline.settings import LOGGER_NAMES
from tests.server.records import round_record
from tests.system.cluster import paceline

ROUNDS = 4


def logged(callback: Callback, folder: Path, first: int = 1, round_: int = 0) -> None:
    """Let a logger hear of some rounds, an evaluation, and the end."""
    rounds: list[Any] = []

    class Keeps(Callback):
        on_round = rounds.append  # type: ignore[assignment]  # any callable will do

    listeners = Listeners([Keeps()])
    listeners.start(RunInfo(folder, "job.py:Job", {}))
    for number in range(first, first + ROUNDS):
        listeners.observe(round_record(number, loss=1.0 / number), 0.0)
    listeners.close()
    tell(callback, RunInfo(folder, "job.py:Job", {"tasks": 4, "seed": 7, "until": None}, round_))
    for event in rounds:
        tell(callback, event)
    tell(callback, EvaluationEvent(first + ROUNDS - 1, {"accuracy": 0.75}, 9.0))
    tell(callback, EndEvent("done", "all is done", {}))


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_names_in_the_settings_are_those_of_the_loggers() -> None:
    assert tuple(LOGGERS) == LOGGER_NAMES


def test_csv_has_a_line_for_each_round_and_evaluation(tmp_path: Path) -> None:
    logged(CsvLogger(), tmp_path)
    rows = table(tmp_path / "rounds.csv")
    assert [(int(row["round"]), float(row["loss"])) for row in rows] == [(n, 1.0 / n) for n in (1, 2, 3, 4)]
    assert [float(row["accuracy"]) for row in table(tmp_path / "evaluations.csv")] == [0.75]


def test_csv_of_a_resumed_run_goes_on_where_the_checkpoint_was(tmp_path: Path) -> None:
    logged(CsvLogger(), tmp_path)
    logged(CsvLogger(), tmp_path, first=3, round_=2)
    assert [int(row["round"]) for row in table(tmp_path / "rounds.csv")] == [1, 2, 3, 4, 5, 6]
    assert [int(row["round"]) for row in table(tmp_path / "evaluations.csv")] == [6]


@pytest.mark.slow
def test_tensorboard_has_every_scalar(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (logger,) = make_loggers(["tensorboard"])
    logged(logger, tmp_path)
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    losses = [(event.step, event.value) for event in found.Scalars("loss")]
    assert losses == [(n, pytest.approx(1.0 / n)) for n in (1, 2, 3, 4)]
    assert [event.value for event in found.Scalars("tasks/w1")] == [3.0] * ROUNDS
    assert found.Scalars("evaluation/accuracy")[0].value == 0.75


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the libraries' own
def test_mlflow_has_parameters_and_metrics_in_a_local_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path / 'store'}")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    (logger,) = make_loggers(["mlflow"])
    logged(logger, tmp_path)
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("paceline")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.status, run.data.params) == ("FINISHED", {"tasks": "4", "seed": "7"})
    assert [metric.value for metric in client.get_metric_history(run.info.run_id, "loss")] == [1.0, 1 / 2, 1 / 3, 1 / 4]
    assert run.data.metrics["evaluation/accuracy"] == 0.75


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_wandb_works_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    (logger,) = make_loggers(["wandb"])
    logged(logger, tmp_path)
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    (kept,) = run.glob("run-*.wandb")
    content = kept.read_bytes()
    assert b"evaluation/accuracy" in content
    assert b"loss" in content


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_library_that_is_not_installed_is_named_with_its_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SettingsError, match=rf'log {name} needs .*: pip install "paceline\[{name}\]"'):
        make_loggers([name])


@pytest.mark.system
@pytest.mark.timeout(120)
def test_the_command_logs_and_calls_callbacks(tmp_path: Path) -> None:
    flags = ("--rounds", "3", "--log", "csv", "--callbacks", "tests/server/users_callback.py:Writes")
    done = paceline("run", "tests/jobs.py:Tiny", *flags, "--run-dir", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert [int(row["round"]) for row in table(tmp_path / "run" / "rounds.csv")] == [1, 2, 3]
    assert json.loads((tmp_path / "run" / "mine.json").read_text()) == ["start", "end done"]
