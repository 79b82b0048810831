"""`paceline.train` runs what `paceline run` runs, tells the caller's callbacks, and gives how it went."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

import paceline
from paceline.callbacks import EndEvent, EvaluationEvent, RoundEvent, StartEvent, WorkerEvent
from paceline.errors import JobImportError, RunFailedError, UsageError
from paceline.evaluation import evaluate
from paceline.server.rundir import WORKERS
from tests.jobs import DigitsLike
from tests.system.cluster import until

ROOT = Path(__file__).resolve().parents[2]
SETTINGS: dict[str, Any] = {
    "workers": 2,
    "tasks": 4,
    "micro_batch": 8,
    "rounds": 4,
    "seed": 3,
    "sums": "exact",
    "progress": False,
}


class Kept(paceline.Callback):
    """Keeps what it hears, and the threads that it hears it in."""

    def __init__(self) -> None:
        self.started: list[StartEvent] = []
        self.rounds: list[RoundEvent] = []
        self.evaluations: list[EvaluationEvent] = []
        self.workers: list[WorkerEvent] = []
        self.ended: list[EndEvent] = []
        self.threads: set[int] = set()

    def on_start(self, event: StartEvent) -> None:
        self.started.append(event)

    def on_round(self, event: RoundEvent) -> None:
        self.rounds.append(event)
        self.threads.add(threading.get_ident())

    def on_evaluation(self, event: EvaluationEvent) -> None:
        self.evaluations.append(event)

    def on_worker(self, event: WorkerEvent) -> None:
        self.workers.append(event)

    def on_end(self, event: EndEvent) -> None:
        # What is said to be saved is there.
        assert (Path(event.run_dir) / "model.safetensors").is_file()
        self.ended.append(event)


class Raises(paceline.Callback):
    def on_round(self, event: RoundEvent) -> None:
        raise ValueError("of the callback")


@pytest.mark.system
def test_a_run_is_told_to_callbacks_and_given_as_columns(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    kept = Kept()
    result = paceline.train(
        DigitsLike,
        callbacks=[Raises(), kept],
        eval_every=2,
        best="accuracy",
        log="csv",
        run_dir=tmp_path / "a",
        **SETTINGS,
    )
    assert result.outcome == "done"
    assert [event.round for event in kept.rounds] == [1, 2, 3, 4]
    assert set(kept.rounds[0].workers) == {"w1", "w2"}
    assert [event.round for event in kept.evaluations][-1] == 4
    assert {event.name for event in kept.workers if event.state == "ready"} == {"w1", "w2"}
    assert kept.started[0].settings["tasks"] == 4
    assert kept.ended[0].summary["fingerprint"] == result.summary["fingerprint"]
    assert threading.get_ident() not in kept.threads

    said = capfd.readouterr().err
    assert said.count("callback Raises.on_round raised ValueError: of the callback: it is called no more") == 1

    assert result.history["round"] == [1, 2, 3, 4]
    assert result.history["loss"] == [event.loss for event in kept.rounds] == result.summary["loss"]
    assert result.history["accuracy"][3] == kept.evaluations[-1].metrics["accuracy"] == result.metrics["accuracy"]
    assert result.history["accuracy"][0] is None
    assert (tmp_path / "a/csv/rounds.csv").read_text().count("\n") == 5

    model = paceline.load(tmp_path / "a")
    assert not model.training
    assert evaluate(DigitsLike(), model) == result.metrics
    best = evaluate(DigitsLike(), paceline.load(tmp_path / "a", "best"))
    assert best["accuracy"] == max(event.metrics["accuracy"] for event in kept.evaluations)
    assert evaluate(DigitsLike(), paceline.load(tmp_path / "a", 4)) == result.metrics
    saved = result.state_dict()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in model.state_dict().items())


@pytest.mark.slow
@pytest.mark.system
def test_a_resumed_run_has_all_rounds_in_its_history(tmp_path: Path) -> None:
    paceline.train(DigitsLike, log="csv", run_dir=tmp_path / "a", **SETTINGS)
    more = Kept()
    result = paceline.train(resume=tmp_path / "a", rounds=6, callbacks=[more], progress=False)
    assert more.started[0].round == 4
    assert [event.round for event in more.rounds] == [5, 6]
    assert result.history["round"] == [1, 2, 3, 4, 5, 6]
    assert (tmp_path / "a/csv/rounds.csv").read_text().count("\n") == 7


def test_a_history_becomes_a_data_frame_where_pandas_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas")
    history: dict[str, list[Any]] = {"round": [1, 2], "loss": [0.5, 0.25], "accuracy": [None, 0.9]}
    result = paceline.Result(
        outcome="done", reason="", run_dir=tmp_path, summary={"metrics": {"accuracy": 0.9}}, history=history
    )
    frame = result.to_pandas()
    assert list(frame.index) == [1, 2]
    assert math.isnan(frame["accuracy"][1])
    assert "2 rounds, loss 0.25, accuracy 0.9" in repr(result)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match=r"to_pandas\(\) needs pandas: pip install 'paceline\[pandas\]'"):
        result.to_pandas()


SCRIPT = """
import paceline
from tests.jobs import DigitsLike

class Mine(DigitsLike):
    n_samples = 128

{guard}
    settings = dict(workers=1, tasks=2, rounds={rounds}, micro_batch=8, run_dir="run", progress={progress})
    result = paceline.train(Mine, **settings)
    print(result.summary["job"], len(result.history["round"]))
"""


def script(folder: Path, guard: str, rounds: int = 2, progress: bool = False) -> subprocess.Popen[str]:
    (folder / "mine.py").write_text(SCRIPT.format(guard=guard, rounds=rounds, progress=progress))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "mine.py"],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.slow
@pytest.mark.system
def test_a_script_may_hold_its_job_itself(tmp_path: Path) -> None:
    said, complaints = script(tmp_path, 'if __name__ == "__main__":').communicate(timeout=90)
    assert said == "mine.py:Mine 2\n", complaints


@pytest.mark.slow
@pytest.mark.system
def test_a_script_without_its_guard_is_told_so(tmp_path: Path) -> None:
    _, complaints = script(tmp_path, "if True:").communicate(timeout=90)
    words = "train() is called while mine.py is imported for its job: put the call under `if __name__ == '__main__':`"
    assert complaints.strip().splitlines()[-1].endswith(words)


@pytest.mark.slow
@pytest.mark.system
def test_ctrl_c_ends_a_script_with_its_state_saved(tmp_path: Path) -> None:
    process = script(tmp_path, 'if __name__ == "__main__":', rounds=1_000_000, progress=True)
    try:
        # Written when the server has said that it serves: before that there is nothing to go on with.
        until((tmp_path / "run" / WORKERS).is_file, "a run that has begun")
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=60)
    finally:
        process.kill()
    assert complaints.strip().splitlines()[-1] == (
        "KeyboardInterrupt: the run is saved; to go on: paceline.train(resume='run')"
    )
    assert (tmp_path / "run/model.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.system
def test_a_run_that_fails_raises_after_its_callbacks_heard(tmp_path: Path) -> None:
    kept = Kept()
    with pytest.raises(RunFailedError, match=r"raises everywhere.*run directory"):
        paceline.train("tests.api.failing:Fails", callbacks=[kept], run_dir=tmp_path / "a", **SETTINGS)
    assert [event.outcome for event in kept.ended] == ["failed"]


@pytest.mark.system
def test_a_job_that_cannot_be_imported_is_said_with_its_traceback(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import paceline\nraise ValueError('of the file')\n")
    with pytest.raises(
        JobImportError, match=r"importing broken\.py of the job raised ValueError: of the file"
    ) as raised:
        paceline.train(f"{tmp_path / 'broken.py'}:A", **SETTINGS)
    assert "raise ValueError('of the file')" in raised.value.traceback_text


def test_what_is_no_callback_is_refused_before_anything_starts() -> None:
    with pytest.raises(UsageError, match="callback is 'x': expected an object"):
        paceline.train(DigitsLike, callbacks=["x"])  # type: ignore[list-item]


def test_the_package_offers_its_names_and_no_others() -> None:
    for name in paceline.__all__:
        assert getattr(paceline, name) is not None
        assert name in dir(paceline)
    with pytest.raises(AttributeError, match="module 'paceline' has no attribute 'trian'"):
        _ = paceline.trian  # type: ignore[attr-defined]


def test_importing_the_package_is_cheap() -> None:
    told = "import sys, paceline; print({'torch', 'grpc', 'pydantic'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
