"""A worker of two processes that torchrun starts: to the server it is one, and the model is that of one process."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from paceline.server.ledger_reader import LedgerReader
from tests.jobs import DigitsLike
from tests.reference import reference_run
from tests.system.cluster import ROOT, Cluster, assert_bit_equal, cluster, until

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(300)]

JOB = "tests/jobs.py:DigitsLike"
TASKS, MICRO_BATCH, SEED, ROUNDS = 9, 8, 5, 12
ARGS = ("--tasks", str(TASKS), "--micro-batch", str(MICRO_BATCH), "--seed", str(SEED), "--policy", "uniform")


@functools.cache
def reference() -> dict[str, torch.Tensor]:
    ids = [range(k * TASKS, (k + 1) * TASKS) for k in range(ROUNDS)]
    return reference_run(DigitsLike(), ids, seed=SEED, micro_batch=MICRO_BATCH).state


def team(run: Cluster, *args: str, name: str = "t", restarts: int = 0) -> subprocess.Popen[bytes]:
    """Start a worker of two processes."""
    flags = ("--nproc-per-node", "2", "--max-restarts", str(restarts))
    command = ["-m", "torch.distributed.run", *flags, "-m", "paceline.worker", run.address, JOB]
    with (run.folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *command, "--name", name, *args],
            cwd=ROOT,
            env=run.environment | {"OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    run.processes[name] = process
    return process


@pytest.mark.parametrize("sums", ["exact", "fast"])
def test_two_processes_and_another_worker_make_the_model_of_one_process(tmp_path: Path, sums: str) -> None:
    told = ("--rounds", str(ROUNDS), "--sums", sums, "--min-workers", "2")
    with cluster(tmp_path, JOB, *ARGS, *told, *(("--inline-bytes", "0") if sums == "exact" else ())) as run:
        both = team(run, "--delay", "const:0.02")
        run.worker("w", "--delay", "const:0.02")
        run.end("server", "w")
        assert both.wait(60) == 0, run.log("t")
        if sums == "exact":
            assert_bit_equal(run.model(), reference())
        else:
            for name, tensor in reference().items():
                torch.testing.assert_close(run.model()[name], tensor, rtol=1e-5, atol=1e-5)
    with LedgerReader(run.run_dir / "ledger.sqlite") as ledger:
        devices = {worker.name: worker.device for worker in ledger.workers()}
        seconds = {"t": 0.0, "w": 0.0}
        used = {"t": 0, "w": 0}
        for record in ledger.rounds()[3:]:
            for worker in record.workers:
                seconds[worker.name] += worker.used_s
                used[worker.name] += worker.used
    assert devices == {"t": "cpu x 2", "w": "cpu"}
    # A task of 0.02 s takes two processes half of that; the machine may be busy.
    assert seconds["t"] / used["t"] < 0.85 * seconds["w"] / used["w"]


def test_a_team_that_loses_a_process_is_lost_and_starts_again_and_drains(tmp_path: Path) -> None:
    with cluster(tmp_path, JOB, *ARGS, "--rounds", "100000", "--sums", "exact") as run:
        process = team(run, "--delay", "const:0.02", restarts=1)
        run.at_round(3)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[-1]), signal.SIGKILL)
        until(lambda: run.worker_state("t") in ("lost", "left"), "the team is gone", 90)
        until(lambda: run.worker_state("t") in ("free", "busy"), "torchrun has started it again", 90)
        run.at_round(int(run.status()["round"]) + 3)
        process.send_signal(signal.SIGTERM)
        until(lambda: run.worker_state("t") == "left", "the team has left")
        process.wait(60)
        assert "draining" in run.log("t")


def test_what_a_team_cannot_do_is_said_in_one_line(tmp_path: Path) -> None:
    with cluster(tmp_path, JOB, *ARGS, "--rounds", "5") as run:
        until(lambda: run.status().get("state") == "waiting", "a server that waits")
        refused = team(run, "--loaders", "2")
        assert refused.wait(90) != 0
        assert "loaders is 2 for 2 processes: expected 0" in run.log("t")
        # Whoever hands tasks out one by one has the first process alone.
        process = team(run, name="u")
        assert process.wait(90) == 0, run.log("u")


def test_processes_on_several_machines_are_refused(tmp_path: Path) -> None:
    environ = os.environ | {
        "TORCHELASTIC_RUN_ID": "none",
        "RANK": "0",
        "WORLD_SIZE": "4",
        "LOCAL_WORLD_SIZE": "2",
        "PACELINE_LOG": "text",
    }
    command = [sys.executable, "-m", "paceline.worker", "127.0.0.1:1", JOB]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 78
    assert "expected one worker per machine" in done.stderr
