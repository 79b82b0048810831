"""A server that is killed goes on where it was: the same parameters, whatever was lost and wherever it was."""

from __future__ import annotations

import functools
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from paceline.errors import UsageError
from paceline.server.checkpoints import CHECKPOINTS, CheckpointReader
from paceline.server.ledger_reader import LedgerReader
from tests.jobs import DigitsLike
from tests.reference import reference_run
from tests.system.cluster import ROOT, Cluster, assert_bit_equal, cluster, environment, paceline, until

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(600)]

JOB = "tests/jobs.py:DigitsLike"
TASKS, MICRO_BATCH, SEED = 6, 8, 11
NAMES = ("a", "b", "c")
DELAY = ("--delay", "const:0.1")
ALL = ("--min-workers", str(len(NAMES)))
KILLS, KILLS_WHILE_SAVING = 25, 5


def server_args(rounds: int, *args: str) -> tuple[str, ...]:
    return (
        *("--rounds", str(rounds), "--tasks", str(TASKS), "--micro-batch", str(MICRO_BATCH), "--seed", str(SEED)),
        *("--sums", "exact", "--policy", "uniform", *args),
    )


@functools.cache
def undisturbed(rounds: int) -> dict[str, torch.Tensor]:
    ids = [range(k * TASKS, (k + 1) * TASKS) for k in range(rounds)]
    return reference_run(DigitsLike(), ids, seed=SEED, micro_batch=MICRO_BATCH).state


def assert_trained(run: Cluster, rounds: int) -> None:
    with LedgerReader(run.run_dir / "ledger.sqlite") as ledger:
        applied = ledger.task_ids_by_round()
    assert list(applied) == list(range(1, rounds + 1))
    assert list(applied.values()) == [list(range(k * TASKS, (k + 1) * TASKS)) for k in range(rounds)]
    assert_bit_equal(run.model(), undisturbed(rounds))


def newest(run_dir: Path) -> int:
    """Give the version of the newest checkpoint, 0 for none; each must be whole."""
    reader = CheckpointReader(run_dir / CHECKPOINTS)
    found = reader.list()
    assert [fault for info in found if (fault := reader.verify(info)) and info.path.exists()] == []
    return max((info.version for info in found), default=0)


def being_saved(run_dir: Path) -> int:
    """Give the version of a checkpoint that is half written, 0 for none."""
    names = [entry.name for entry in os.scandir(run_dir / CHECKPOINTS)]
    whole = max((int(name) for name in names if name.isdecimal()), default=0)
    half = [int(found[1]) for name in names if (found := re.match(r"\.tmp-(\d+)-", name))]
    return max((version for version in half if version > whole), default=0)


def kill_while_saving(run: Cluster) -> None:
    """Kill the server at the moment in which a checkpoint is seen that is half written."""
    deadline = time.monotonic() + 30.0
    while not being_saved(run.run_dir):  # without a pause: a checkpoint takes some milliseconds
        assert time.monotonic() < deadline, f"no checkpoint was begun\n{run.all_logs()}"
        assert run.server.poll() is None, f"the server ended early\n{run.all_logs()}"
    run.server.kill()


def kill_later(run: Cluster, seconds: float) -> None:
    """Kill the server so long after it began to serve."""
    until(lambda: run.status(), f"the server answers\n{run.all_logs()}")
    ends_s = time.monotonic() + seconds
    until(lambda: time.monotonic() >= ends_s, "a while")
    run.server.kill()


def test_a_server_killed_25_times_ends_with_the_undisturbed_parameters(tmp_path: Path) -> None:
    rounds, chance, while_saving, lives = 240, random.Random(23), 0, []
    with cluster(tmp_path, JOB, *server_args(rounds, "--checkpoint-every", "2", *ALL), json_log=True) as run:
        for name in NAMES:
            run.worker(name, *DELAY)
        run.at_round(3)
        for number in range(KILLS):
            if number % 3 == 0:
                kill_while_saving(run)
            else:
                kill_later(run, chance.uniform(0.0, 2.5))
            assert run.server.wait(10) == -signal.SIGKILL
            while_saving += being_saved(run.run_dir) > 0
            lives.append(newest(run.run_dir))
            run.resume()
        assert while_saving >= KILLS_WHILE_SAVING
        assert lives == sorted(lives), "no checkpoint was lost"
        run.end()
        assert paceline("checkpoint", "verify", str(run.run_dir)).returncode == 0
        with LedgerReader(run.run_dir / "ledger.sqlite") as ledger:
            assert [life.life for life in ledger.lives()] == list(range(1, KILLS + 2))
        assert_trained(run, rounds)
        assert len([name for name in run.processes if name in NAMES]) == len(NAMES), "no worker was started again"


def fill(folder: Path) -> Path:
    """Leave no room on the file system of a folder; give the file that takes it."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                continue
    return filler


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("to mount a small file system needs root")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"no small file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def test_a_full_disk_costs_neither_the_run_nor_the_old_checkpoint(tmp_path: Path, small_disk: Path) -> None:
    rounds = 160
    with cluster(
        tmp_path, JOB, *server_args(rounds, "--checkpoint-every", "5", *ALL), json_log=True, run_dir=small_disk / "run"
    ) as run:
        for name in NAMES:
            run.worker(name, *DELAY)
        until(lambda: run.logged("checkpoint"), "a checkpoint")
        filler = fill(small_disk)
        until(lambda: len(run.logged("checkpoint-failed")) >= 2, f"saving fails\n{run.all_logs()}")
        failed = run.logged("checkpoint-failed")[-1]
        assert "space" in failed["error"], failed
        until(lambda: run.logged("ledger-waits"), f"the ledger waits\n{run.all_logs()}")
        assert "full" in run.logged("ledger-waits")[0]["error"]
        at, kept = int(run.status()["version"]), newest(run.run_dir)
        assert 0 < kept < failed["version"], "the old checkpoint is whole"
        run.at_round(at + 10)
        assert newest(run.run_dir) == kept
        filler.unlink()
        until(lambda: run.logged("ledger-caught-up"), f"the ledger catches up\n{run.all_logs()}")
        until(lambda: newest(run.run_dir) > at, f"checkpoints are saved again\n{run.all_logs()}")
        run.end()
        assert paceline("checkpoint", "verify", str(run.run_dir)).returncode == 0
        assert_trained(run, rounds)


def test_ctrl_c_of_a_run_prints_the_command_that_goes_on(tmp_path: Path) -> None:
    rounds, run_dir, log = 60, tmp_path / "run", tmp_path / "log"
    command = ["run", JOB, "--workers", "3", *DELAY, "--run-dir", str(run_dir), *server_args(rounds)]
    with log.open("wb") as file:
        first = subprocess.Popen(
            [sys.executable, "-m", "paceline.cli", *command], stderr=file, env=environment(), cwd=ROOT
        )
    try:
        until(lambda: first.poll() is not None or committed(run_dir) >= 5, "some rounds")
        first.send_signal(signal.SIGINT)
        assert first.wait(60) == 130, log.read_text()
    finally:
        first.kill()
        first.wait(10)
    before = newest(run_dir)
    assert 5 <= before < rounds
    (told,) = re.findall(rf"to go on from round {before}: paceline (.*)", log.read_text())
    done = paceline(*told.split())
    assert done.returncode == 0, done.stderr
    with LedgerReader(run_dir / "ledger.sqlite") as ledger:
        assert [life.life for life in ledger.lives()] == [1, 2]
        assert len(ledger.rounds()) == rounds
    assert_bit_equal(load_file(run_dir / "model.safetensors"), undisturbed(rounds))


def committed(run_dir: Path) -> int:
    """Count the rounds in a ledger; 0 while there is none."""
    try:
        with LedgerReader(run_dir / "ledger.sqlite") as ledger:
            return len(ledger.rounds())
    except UsageError:
        return 0
