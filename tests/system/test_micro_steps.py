"""Workers whose memory takes different slices train one model, and its replay gives the same bits."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from tests.system.cluster import paceline

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]


def test_each_worker_finds_its_own_slices_and_a_replay_knows_them(tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    job = "tests.system.narrow_job:Narrow"
    flags = ("--micro-steps", "auto", "--micro-batch", "16", "--rounds", "6", "--tasks", "4", "--policy", "uniform")
    done = paceline("run", job, *flags, "--run-dir", run)
    assert done.returncode == 0, done.stderr
    with sqlite3.connect(tmp_path / "run" / "ledger.sqlite") as ledger:
        found = {
            worker: json.loads(steps) for worker, steps in ledger.execute("SELECT worker, micro_steps FROM leases")
        }
    ledger.close()
    assert {worker: set(steps) for worker, steps in found.items()} == {"w1": {2}, "w2": {8}}
    again = paceline("replay", run)
    assert again.returncode == 0, again.stdout + again.stderr
