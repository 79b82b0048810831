"""Training from Python: the same run as the command's, callbacks in the caller's process, and the model afterwards."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from paceline.api import (
    Callback,
    EndEvent,
    EvaluationEvent,
    RoundEvent,
    RunInfo,
    WorkerEvent,
    export,
    load,
    spec_of,
    train,
)
from paceline.errors import JobImportError, RunFailedError, UsageError
from tests.jobs import DigitsLike, Tiny
from tests.system.cluster import ROOT, environment, paceline

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

JOB = "tests/jobs.py:Tiny"


class Hears(Callback):
    def __init__(self) -> None:
        self.heard: list[Any] = []

    def on_start(self, run: RunInfo) -> None:
        self.heard.append(run)

    def on_round(self, event: RoundEvent) -> None:
        self.heard.append(event)

    def on_evaluation(self, event: EvaluationEvent) -> None:
        self.heard.append(event)

    def on_worker(self, event: WorkerEvent) -> None:
        self.heard.append(event)

    def on_end(self, event: EndEvent) -> None:
        self.heard.append(event)

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.heard if isinstance(event, kind)]


class Breaks(Hears):
    def on_round(self, event: RoundEvent) -> None:
        super().on_round(event)
        if event.round == 2:
            raise ValueError("no more of this")


def test_a_run_is_the_commands_and_its_events_reach_the_caller(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    hears, breaks = Hears(), Breaks()
    told: dict[str, Any] = {"rounds": 6, "tasks": 4, "seed": 3, "sums": "exact", "eval_every": 2}
    result = train(DigitsLike, workers=2, run_dir=tmp_path / "a", callbacks=[breaks, hears], **told)
    flags = ("--rounds", "6", "--tasks", "4", "--seed", "3", "--sums", "exact", "--eval-every", "2", "--workers", "2")
    done = paceline("run", "tests/jobs.py:DigitsLike", *flags, "--run-dir", str(tmp_path / "b"))
    assert f"fingerprint {result.summary['fingerprint']}" in done.stdout
    # What is heard is what the ledger and the summary have, in order.
    assert isinstance(hears.heard[0], RunInfo)
    assert hears.heard[0].run_dir == result.run_dir == tmp_path / "a"
    rounds = hears.of(RoundEvent)
    assert [event.round for event in rounds] == list(result.history["round"]) == [1, 2, 3, 4, 5, 6]
    assert [event.loss for event in rounds] == list(result.history["loss"]) == result.summary["loss"]
    assert all(sum(worker.tasks for worker in event.workers) == event.tasks == 4 for event in rounds)
    assert {event.state for event in hears.of(WorkerEvent)} >= {"joining", "ready"}
    measured = hears.of(EvaluationEvent)
    assert measured[-1].round == 6
    assert measured[-1].metrics == result.metrics
    assert list(result.evaluations["round"]) == [event.round for event in measured]
    assert isinstance(hears.heard[-1], EndEvent)
    assert hears.heard[-1].summary == result.summary
    # One that raised is switched off, and the others hear on.
    assert len(breaks.of(RoundEvent)) == 2
    assert "callback Breaks raised ValueError: no more of this and is switched off" in capfd.readouterr().err


def test_the_model_of_a_run_is_given_back(tmp_path: Path) -> None:
    result = train(JOB, rounds=2, run_dir=tmp_path / "run", progress=False)
    model = result.model()
    weights = load(tmp_path / "run", weights=tmp_path / "run" / "model.safetensors").state_dict()
    fresh = Tiny().model().state_dict()
    assert not model.training
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert any(not torch.equal(value, fresh[name]) for name, value in weights.items())
    with pytest.raises(UsageError, match=r"has no save_pretrained\(\): expected one of transformers"):
        export(tmp_path / "run", tmp_path / "model")
    assert not (tmp_path / "model").exists()
    with pytest.raises(UsageError, match=r"has no settings.json: expected the directory of a run"):
        load(tmp_path)


def test_history_is_a_table(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    table = train(JOB, rounds=3, run_dir=tmp_path / "run", progress=False).to_pandas()
    assert list(table["round"]) == [1, 2, 3]
    assert math.isfinite(table["loss"].iloc[-1])


def test_a_script_trains_the_job_that_it_holds(tmp_path: Path) -> None:
    script = [sys.executable, "tests/system/api_script.py", str(tmp_path / "run")]
    env = environment() | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(script, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:3] == ["round 1", "round 2", "round 3"]
    assert done.stdout.splitlines()[3].startswith("done 3 ")


def test_what_is_wrong_is_said_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Inside(Tiny):
        pass

    stranger = type("Stranger", (Tiny,), {"__module__": "nowhere"})
    not_a_job: Any = 5
    not_a_callback: Any = "x"
    for job, settings, told in (
        (JOB, {"round": 3}, r"setting 'round' is unknown \(did you mean rounds\?\)"),
        (JOB, {"rounds": 0}, "rounds is 0: expected a whole number, at least 1"),
        (JOB, {"policy": "atta"}, "policy is 'atta'"),
        (JOB, {"bind": "0.0.0.0:1"}, "setting 'bind' is unknown"),
        (JOB, {"callbacks": [not_a_callback]}, "callback 'x' is no Callback"),
        (JOB, {"log": "cvs"}, "log is 'cvs': expected one of csv, tensorboard, wandb, mlflow"),
        (not_a_job, {}, "job is 5: expected a subclass of Job"),
        (Inside, {}, "stands inside of something"),
        (stranger, {}, "stands in no file: put it into one"),
        ("none.py:Job", {}, "job file 'none.py' does not exist"),
    ):
        with pytest.raises((UsageError, JobImportError), match=told):
            train(job, run_dir=tmp_path / "run", progress=False, **settings)
    assert not (tmp_path / "run").exists()


def test_a_run_that_fails_raises_and_says_where_it_lies(tmp_path: Path) -> None:
    with pytest.raises(RunFailedError, match=r"failed on .* \(run directory .*run\)"):
        train("tests/jobs.py:FailsOnSample", rounds=50, run_dir=tmp_path / "run", progress=False)


def test_a_class_of_a_package_is_named_by_its_module() -> None:
    assert spec_of(Tiny) == "tests.jobs:Tiny"
    assert os.fspath(ROOT) not in spec_of(Tiny)
