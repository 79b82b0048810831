"""The learned split: every decision of a real run is the pure algorithm's on the recorded times."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from paceline.allocation import allocate, ata_empirical_scores, constant_for
from paceline.server.ledger_reader import LedgerReader
from tests.system.cluster import paceline

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(300)]

TASKS, SEED = 23, 5
DELAY = ("--delay", "const:0.0025,const:0.005,const:0.01,const:0.02")
NAMES = ("w1", "w2", "w3", "w4")


def train(folder: Path, policy: str, rounds: int, *args: str) -> LedgerReader:
    done = paceline(
        *("run", "tests/jobs.py:Tiny", "--workers", "4", "--tasks", str(TASKS), "--rounds", str(rounds)),
        *("--seed", str(SEED), "--policy", policy, "--run-dir", str(folder / "run"), *DELAY, *args),
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return LedgerReader(folder / "run" / "ledger.sqlite")


def test_ata_empirical_decides_as_the_algorithm_does_on_the_recorded_times(tmp_path: Path) -> None:
    rounds = 120
    with train(tmp_path, "ata-empirical", rounds) as ledger:
        planned = [{str(name): tasks for name, tasks in record.allocation} for record in ledger.rounds()]
        seconds: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for lease in ledger.leases():
            seconds[lease.round][lease.worker] += [result.seconds for result in lease.results]
        settings = json.loads(ledger.meta()["settings"])
    assert len(planned) == rounds
    assert settings["seed"] == SEED
    rng = np.random.default_rng(SEED)
    constant = constant_for("ata-empirical", "paper")
    done, busy_s = np.zeros(4, dtype=np.int64), np.zeros(4)
    by_score = 0
    for number, decided in enumerate(planned, start=1):
        scores = ata_empirical_scores(done, busy_s, np.full(4, number), constant)
        expected = allocate(scores, TASKS, rng)
        got = np.array([decided.get(name, 0) for name in NAMES])
        np.testing.assert_array_equal(got, expected, err_msg=f"round {number}, scores {scores}")
        by_score += bool((scores > 0).all())
        for i, name in enumerate(NAMES):
            done[i] += len(seconds[number][name])
            busy_s[i] += sum(seconds[number][name])
    assert by_score > rounds // 2


def test_fixed_gives_the_oracles_split(tmp_path: Path) -> None:
    with train(tmp_path, "fixed", 20, "--means", "0.01,0.02,0.04,0.08") as ledger:
        assert all(dict(record.allocation) == {"w1": 13, "w2": 6, "w3": 3, "w4": 1} for record in ledger.rounds())
