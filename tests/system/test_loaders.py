"""Loader processes of real workers: the same model, samples that cannot be read, and no process left behind."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.system.cluster import paceline, until
from tests.system.test_run import running

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

AUGMENTED = "tests/jobs.py:Augmented"
ONE_BY_ONE = "tests/worker/loader_jobs.py"
ROUNDS = ("--rounds", "6", "--tasks", "6", "--micro-batch", "8", "--sums", "exact", "--seed", "3")


def trained(folder: Path, job: str, *args: str) -> dict[str, Any]:
    out = folder / "out.json"
    folder.mkdir(exist_ok=True)
    done = paceline("run", job, *ROUNDS, *args, "--run-dir", str(folder / "run"), "--json", str(out))
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(out.read_text())
    return told


def test_the_bits_do_not_change_with_the_number_of_loaders(tmp_path: Path) -> None:
    models = {count: trained(tmp_path / count, AUGMENTED, "--loaders", count) for count in ("0", "2")}
    assert len({told["fingerprint"] for told in models.values()}) == 1
    assert all(0.0 < worker["data_share"] < 1.0 for told in models.values() for worker in told["workers"])


@pytest.mark.slow
def test_nor_with_one_or_four_of_them(tmp_path: Path) -> None:
    models = [trained(tmp_path / count, AUGMENTED, "--loaders", count)["fingerprint"] for count in ("0", "1", "4")]
    assert len(set(models)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("job", ["Raises", "Dies"])
def test_a_sample_that_cannot_be_read_ends_the_run_by_name_and_no_worker(tmp_path: Path, job: str) -> None:
    done = paceline("run", f"{ONE_BY_ONE}:{job}", *ROUNDS, "--loaders", "2", "--run-dir", str(tmp_path / "run"))
    assert done.returncode == 1
    assert "paceline: failed: task" in done.stderr
    assert ("picture 13 is broken" if job == "Raises" else "did not survive loading it") in done.stderr
    assert "ended: " not in done.stderr


@pytest.mark.slow
def test_a_run_that_is_killed_leaves_no_loader(tmp_path: Path) -> None:
    args = ("--rounds", "100000", "--delay", "const:0.02", "--loaders", "2")
    with running(tmp_path, *args, job=AUGMENTED) as run:
        run.at_round(2)
        # The two workers' loaders, and what torch needs to start and watch them.
        until(lambda: len(run.pids()) >= 4 + 2 * 2, "loader processes")
        for pid in run.pids("worker"):
            os.kill(pid, 9)
        run.process.kill()
        run.process.wait()
        until(lambda: not run.pids(), "the end of all its processes")
