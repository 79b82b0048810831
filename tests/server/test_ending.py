"""How runs end, with a real server: goals, evaluations, failures, signals, cancellation."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file

from paceline.coordination.effects import Outcome
from paceline.errors import PacelineError, RunFailedError
from paceline.protos import coordinator_pb2 as pb
from paceline.server import serve
from paceline.server.evaluations import goal_is_met
from tests.server.raw_worker import LIMIT_S, RawWorker, Run, serving, settings

COUNTING = "tests/server/ending.py:Counting"


async def step(worker: RawWorker) -> None:
    """Do one round in which the mean gradient is -1: Counting's metric grows by one."""
    lease = await worker.hear("lease")
    result = await worker.push(worker.contribution(lease, worker.payload(-8.0)))
    assert result.verdict == pb.PUSH_VERDICT_ACCEPTED


async def test_a_run_ends_when_a_version_meets_the_goal(tmp_path: Path) -> None:
    goal = settings(tmp_path, job=COUNTING, rounds=None, until="steps >= 3")
    async with serving(goal) as run, RawWorker(run.address, job=COUNTING) as worker:
        await worker.join()
        assert (await run.status()).rounds == 0

        async def work() -> None:
            while True:
                await step(worker)

        working = asyncio.create_task(work())
        result = await run.end()
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    assert result.outcome is Outcome.DONE
    assert "steps" in result.reason
    # Rounds do not wait for evaluations, so a few more may be done; the metrics are those of the version saved.
    assert result.summary["metrics"] == {"steps": result.summary["rounds"]}
    assert result.summary["rounds"] >= 3
    assert weights(result.summary["model"]) == result.summary["rounds"]


async def test_evaluations_are_made_every_so_many_rounds_and_do_not_hold_rounds_up(tmp_path: Path) -> None:
    every_two = settings(tmp_path, job=COUNTING, rounds=7, eval_every=2)
    async with serving(every_two) as run, RawWorker(run.address, job=COUNTING) as worker:
        await worker.join()
        await step(worker)
        assert not (await run.status()).metrics
        # Loaded by its path the job is another class than the one that could be imported here.
        may_evaluate: threading.Event = run.server._prepared.job.may_evaluate  # type: ignore[attr-defined]
        may_evaluate.clear()
        try:
            for _ in range(5):
                await step(worker)
            await reaches(run, version=6)
            assert not (await run.status()).metrics
        finally:
            may_evaluate.set()
        async with asyncio.timeout(LIMIT_S):
            # Version 2 was being measured; 4 and 6 fell due meanwhile and became one: of the newest.
            while (await run.status()).metrics.get("steps") != 6.0:
                pass
        await step(worker)
        result = await run.end()
    assert result.summary["metrics"] == {"steps": 7.0}


async def test_a_stopped_run_saves_its_model_and_can_be_told_apart(tmp_path: Path) -> None:
    many = settings(tmp_path, job=COUNTING, rounds=9)
    async with serving(many) as run, RawWorker(run.address, job=COUNTING) as worker:
        await worker.join()
        await step(worker)
        await reaches(run, version=1)
        run.server.stop("enough")
        assert (await worker.hear("goodbye")).outcome == pb.RUN_OUTCOME_STOPPED
        result = await run.end()
    assert (result.outcome, result.reason) == (Outcome.STOPPED, "enough")
    assert weights(result.summary["model"]) == 1.0


async def test_an_evaluation_in_progress_does_not_hold_up_a_stop(tmp_path: Path) -> None:
    many = settings(tmp_path, job=COUNTING, rounds=9, eval_every=1)
    async with serving(many) as run, RawWorker(run.address, job=COUNTING) as worker:
        await worker.join()
        may_evaluate: threading.Event = run.server._prepared.job.may_evaluate  # type: ignore[attr-defined]
        may_evaluate.clear()
        try:
            await step(worker)
            await reaches(run, version=1)
            run.server.stop("enough")
            # The evaluation goes on for 20 s.
            async with asyncio.timeout(LIMIT_S / 2):
                result = await run.end()
        finally:
            may_evaluate.set()
    assert result.outcome is Outcome.STOPPED


@pytest.mark.parametrize(
    ("job", "reason", "last_frame"),
    [
        ("FailsToEvaluate", "evaluate() raised RuntimeError: no test data", "RuntimeError: no test data"),
        ("ExitsWhenMeasured", "evaluate() raised SystemExit: bye", "SystemExit: bye"),
        ("FailsToStep", "raised RuntimeError: cannot clip", "RuntimeError: cannot clip"),
        ("Explodes", "not finite", ""),
    ],
)
async def test_what_the_jobs_own_code_does_wrong_fails_the_run_in_its_words(
    tmp_path: Path, job: str, reason: str, last_frame: str
) -> None:
    spec = f"tests/server/ending.py:{job}"
    async with serving(settings(tmp_path, job=spec, rounds=1)) as run, RawWorker(run.address, job=spec) as worker:
        await worker.join()
        await step(worker)
        result = await run.end()
    assert result.outcome is Outcome.FAILED
    assert result.summary["outcome"] == "failed"
    assert reason in result.reason
    assert "\n" not in result.reason
    assert last_frame in result.detail
    if last_frame:
        assert "ending.py" in result.detail
        assert "core/paceline" not in result.detail
    assert result.summary["model"]


async def test_a_goal_that_evaluate_never_names_fails_the_run(tmp_path: Path) -> None:
    goal = settings(tmp_path, job=COUNTING, rounds=9, until="accuracy>=0.9")
    async with serving(goal) as run, RawWorker(run.address, job=COUNTING) as worker:
        await worker.join()
        await step(worker)
        result = await run.end()
    assert result.outcome is Outcome.FAILED
    assert result.reason == "until names metric 'accuracy', but the evaluation gave steps"


async def test_an_error_of_our_own_ends_the_run_as_a_bug_with_the_model_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(settings(tmp_path)) as run, RawWorker(run.address) as worker:

        def fail(*_: object) -> None:
            raise ZeroDivisionError("a slip")

        monkeypatch.setattr(run.server._parts.model, "add", fail)
        await worker.join()
        await worker.say(contribution=worker.contribution(await worker.hear("lease")))
        assert (await worker.hear("goodbye")).outcome == pb.RUN_OUTCOME_FAILED
        with pytest.raises(PacelineError, match="a bug in the server: ZeroDivisionError: a slip"):
            await run.end()
    assert await asyncio.to_thread((tmp_path / "model.safetensors").is_file)


async def test_a_model_that_cannot_be_saved_is_said_so_after_all_was_taken_down(tmp_path: Path) -> None:
    spec = "tests/server/ending.py:FailsToBeSaved"
    async with serving(settings(tmp_path, job=spec, rounds=1)) as run, RawWorker(run.address, job=spec) as worker:
        await worker.join()
        await step(worker)
        with pytest.raises(RunFailedError, match=r"model\.safetensors'?: RuntimeError: no state"):
            await run.end()


async def test_a_server_that_is_cancelled_saves_the_model(tmp_path: Path) -> None:
    started = asyncio.Event()
    serving_task = asyncio.create_task(serve(settings(tmp_path), on_started=lambda what: started.set()))
    await asyncio.wait_for(started.wait(), LIMIT_S)
    serving_task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(serving_task, LIMIT_S)
    assert await asyncio.to_thread((tmp_path / "model.safetensors").is_file)


SERVER = """
import sys
from pathlib import Path
from paceline.server import run_server
from paceline.settings import RunSettings
settings = RunSettings(job=sys.argv[1], bind="127.0.0.1:0", run_dir=Path(sys.argv[2]))
result = run_server(settings, on_started=lambda what: print("at", what.address, flush=True))
print(result.outcome.value, "because", result.reason, flush=True)
"""


@contextlib.contextmanager
def server_process(job: str, run_dir: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a server as a process; it serves when its first line is there."""
    command = [sys.executable, "-c", SERVER, job, str(run_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def line_with(process: subprocess.Popen[str], words: str) -> str:
    """Read the process's output up to a line with these words."""
    assert process.stdout is not None
    for line in process.stdout:
        if words in line:
            return line
    raise AssertionError(f"the server ended without saying {words!r}")


@pytest.mark.system
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_server_with_its_model_saved(tmp_path: Path, number: signal.Signals) -> None:
    with server_process("tests/jobs.py:Tiny", tmp_path / "run") as process:
        line_with(process, "at 127.0.0.1:")
        # As timeout(1) does, to its child and to the group: twice at once is one.
        process.send_signal(number)
        process.send_signal(number)
        assert f"because stopped by {number.name}" in line_with(process, "stopped because")
        assert process.wait(LIMIT_S) == 0
    assert (tmp_path / "run" / "model.safetensors").is_file()


@pytest.mark.system
def test_a_second_signal_quits_at_once(tmp_path: Path) -> None:
    with server_process("tests/server/ending.py:HangsWhenSaved", tmp_path / "run") as process:
        line_with(process, "at 127.0.0.1:")
        process.send_signal(signal.SIGINT)
        line_with(process, "run stopped")
        deadline_s = time.monotonic() + LIMIT_S
        while process.poll() is None and time.monotonic() < deadline_s:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.2)
        assert process.returncode == 128 + signal.SIGTERM


@pytest.mark.parametrize(
    ("goal", "value", "met"),
    [(">=", 0.97, True), (">=", 0.969, False), ("<=", 0.97, True), ("<=", 0.971, False), (">=", float("nan"), False)],
)
def test_a_goal_is_met_at_its_bound(goal: str, value: float, met: bool) -> None:
    assert goal_is_met(("accuracy", goal, 0.97), {"accuracy": value}) is met


def weights(path: str) -> float:
    """Give the first bias of a saved Counting model."""
    return float(load_file(path)["bias"][0].item())


async def reaches(run: Run, version: int) -> None:
    """Wait until the model has a version."""
    async with asyncio.timeout(LIMIT_S):
        while (await run.status()).version < version:
            pass
