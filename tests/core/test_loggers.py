"""Each logger writes rounds and evaluations where its tool finds them, and goes on with a run that was resumed."""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from paceline.callbacks import Callback, EndEvent, EvaluationEvent, Listeners, RoundEvent, StartEvent, WorkerShare
from paceline.errors import UsageError
from paceline.loggers import LOGGERS, check_loggers, make_loggers
from tests.system.cluster import until

SHARE = WorkerShare(planned=3, used=2, wasted=1, used_s=0.2, wasted_s=0.1, idle_s=0.05)


def play(logger: Callback, folder: Path, rounds: Sequence[int], outcome: str = "done") -> None:
    """Tell a logger of rounds, the loss of round k being 1/k; each even one is evaluated. It may not raise."""
    faults: list[str] = []
    listeners = Listeners([logger], lambda line, trace: faults.append(line + trace))
    settings = {"job": "a.py:A", "tasks": 4, "until": None}
    listeners.post(StartEvent(run_dir=str(folder), address="", round=rounds[0] - 1, settings=settings))
    for number in rounds:
        listeners.post(
            RoundEvent(
                round=number, loss=1 / number, seconds=0.5, at_s=number * 0.5, tasks=4, samples=128, reason="",
                workers={"w1": SHARE},
            )
        )  # fmt: skip
        if number % 2 == 0:
            listeners.post(EvaluationEvent(number, {"accuracy": number / 10}))
    listeners.post(EndEvent(outcome=outcome, reason="", run_dir=str(folder), summary={}))
    listeners.close()
    assert faults == []


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return [*csv.DictReader(file)]


def test_csv_has_a_row_for_each_round_and_evaluation(tmp_path: Path) -> None:
    (logger,) = make_loggers(["csv"])
    play(logger, tmp_path, [1, 2, 3, 4])
    rows = table(tmp_path / "csv/rounds.csv")
    assert [float(row["loss"]) for row in rows] == [1 / number for number in (1, 2, 3, 4)]
    assert rows[0]["wasted_tasks"] == "1"
    assert float(rows[0]["worker_s"]) == pytest.approx(0.3)
    assert table(tmp_path / "csv/evaluations.csv") == [
        {"round": "2", "accuracy": "0.2"},
        {"round": "4", "accuracy": "0.4"},
    ]


def test_csv_of_a_resumed_run_has_each_round_once(tmp_path: Path) -> None:
    for rounds in ([1, 2, 3, 4], [3, 4, 5, 6]):
        (logger,) = make_loggers(["csv"])
        play(logger, tmp_path, rounds)
    assert [row["round"] for row in table(tmp_path / "csv/rounds.csv")] == list("123456")
    assert [row["round"] for row in table(tmp_path / "csv/evaluations.csv")] == list("246")


def test_tensorboard_reads_the_scalars_back(tmp_path: Path) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for rounds in ([1, 2, 3, 4], [3, 4, 5, 6]):
        (logger,) = make_loggers(["tensorboard"])
        play(logger, tmp_path, rounds)
    events: Any = accumulators.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    losses = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert losses == [(number, pytest.approx(1 / number)) for number in range(1, 7)]
    assert [event.step for event in events.Scalars("eval/accuracy")] == [2, 4, 6]
    assert events.Scalars("worker/w1/tasks")[0].value == 2.0


def test_mlflow_keeps_one_run_in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    for rounds in ([1, 2], [3, 4]):
        (logger,) = make_loggers(["mlflow"])
        play(logger, tmp_path, rounds)
    client = mlflow.MlflowClient(tracking_uri=(tmp_path / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("paceline")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params == {"job": "a.py:A", "tasks": "4"}
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(one.step, one.value) for one in history] == [(number, 1 / number) for number in (1, 2, 3, 4)]
    assert [one.step for one in client.get_metric_history(run.info.run_id, "eval/accuracy")] == [2, 4]


def test_a_failed_run_is_marked_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    uri = (tmp_path / "mlruns").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    (logger,) = make_loggers(["mlflow"])
    play(logger, tmp_path, [1], outcome="failed")
    client = mlflow.MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs([client.get_experiment_by_name("paceline").experiment_id])
    assert run.info.status == "FAILED"


def test_wandb_writes_an_offline_run_that_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for rounds in ([1, 2], [3]):
        # wandb names a folder by id and second; no server comes back within one.
        until(
            lambda: not [*(tmp_path / "wandb").glob(f"offline-run-{time.strftime('%Y%m%d_%H%M%S')}-*")], "a new second"
        )
        (logger,) = make_loggers(["wandb"])
        play(logger, tmp_path, rounds)
    name = (tmp_path / "wandb-id").read_text().strip()
    files = sorted((tmp_path / "wandb").glob(f"offline-run-*-{name}/run-{name}.wandb"))
    assert len(files) == 2
    assert b"train/loss" in files[0].read_bytes()
    assert b"eval/accuracy" in files[0].read_bytes()


@pytest.mark.parametrize(("name", "module"), [("tensorboard", "tensorboard"), ("wandb", "wandb"), ("mlflow", "mlflow")])
def test_a_library_that_is_missing_is_said_with_its_extra(
    name: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=rf"the {name} logger needs {module}: pip install 'paceline\[{name}\]'"):
        make_loggers([name])


def test_a_small_mlflow_without_a_place_to_write_to_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(UsageError, match=r"write into 'sqlite:.*expected MLFLOW_TRACKING_URI to be a server's"):
        make_loggers(["mlflow"])


def test_names_are_checked_and_counted_once() -> None:
    assert check_loggers(["csv", "mlflow", "csv"]) == ("csv", "mlflow")
    with pytest.raises(UsageError, match=r"log is 'tensorbord': .* \(did you mean tensorboard\?\)"):
        check_loggers(["tensorbord"])
    assert set(LOGGERS) == {"csv", "tensorboard", "wandb", "mlflow"}
