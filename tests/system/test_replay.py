"""Real runs over gRPC, made again from their ledgers in one process: the same bits, or the round that differs."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
from pathlib import Path

import pytest

from paceline.server.verdict import Verdict
from tests.system.cluster import cluster, paceline, until
from tests.system.replaying import ROUNDS, TASKS, replayed, train

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]
slow = pytest.mark.slow


def names(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir()}


def contents(path: Path) -> dict[str, bytes]:
    return {str(entry.relative_to(path)): entry.read_bytes() for entry in path.rglob("*") if entry.is_file()}


@pytest.mark.parametrize(
    ("job", "args"),
    [
        # Groups, clipping, a scheduler, tied and frozen parameters, augmentation, a loss of (sum, n).
        ("Augmented", ("--policy", "greedy", "--sums", "exact", "--micro-steps", "2")),
        # Contributions in chunks; the order of adding matters where sums are rounded.
        pytest.param("Broad", ("--policy", "ata-empirical", "--sums", "fast", "--inline-bytes", "0"), marks=slow),
        pytest.param("DigitsLikeFloat64", ("--policy", "greedy", "--sums", "fast", "--precision", "bf16"), marks=slow),
    ],
)
def test_whatever_a_job_does_is_made_again(tmp_path: Path, job: str, args: tuple[str, ...]) -> None:
    train(tmp_path / "run", job, *args)
    judgement = replayed(tmp_path / "run")
    assert judgement.difference is None
    assert judgement.verdict is Verdict.BIT_EQUAL


@slow
def test_the_command_says_so_or_names_the_first_round_that_differs(tmp_path: Path) -> None:
    path, out = tmp_path / "run", tmp_path / "out.json"
    train(path, "DigitsLike", "--policy", "greedy", "--sums", "exact")
    equal = paceline("replay", str(path), "--json", str(out))
    assert equal.returncode == 0, equal.stderr
    fingerprint = json.loads(out.read_text())["fingerprint"]
    line = f"bit-equal: {ROUNDS} rounds, {ROUNDS * TASKS} tasks"
    assert equal.stdout == f"paceline: {line}; parameters have fingerprint {fingerprint}\n"

    # Tasks that were used give way to others that were not.
    with contextlib.closing(sqlite3.connect(path / "ledger.sqlite")) as connection, connection:
        applied = "FROM leases WHERE round = 7 AND kept != '' ORDER BY place LIMIT 1"
        lease, tasks = connection.execute(f"SELECT lease, json_array_length(samples) {applied}").fetchone()
        wrong = f"90000-{90000 + tasks - 1}"
        connection.execute("UPDATE leases SET kept = ? WHERE lease = ?", (wrong, lease))
    before = contents(path)
    differs = paceline("replay", str(path), "tests/jobs.py:DigitsLike", "--json", str(out))
    assert differs.returncode == 1
    assert differs.stdout.startswith("paceline: differs: round 7: loss sum of task 90000 (w"), differs.stdout
    assert f"paceline: bit-equal before it: 6 rounds, {6 * TASKS} tasks" in differs.stdout
    document = json.loads(out.read_text())
    assert (document["verdict"], document["difference"]["round"], document["rounds"]) == ("differs", 7, 6)
    assert contents(path) == before


@slow
def test_a_run_in_progress_goes_on_undisturbed_and_a_killed_one_is_read(tmp_path: Path) -> None:
    settings = ("--rounds", "100000", "--tasks", "4", "--micro-batch", "8", "--sums", "exact", "--policy", "greedy")
    with cluster(tmp_path, "tests/jobs.py:DigitsLike", *settings) as run:
        for name in ("a", "b"):
            run.worker(name, "--delay", "const:0.01")
        run.at_round(20)
        done = paceline("replay", str(run.run_dir))
        assert done.returncode == 0, done.stderr
        assert "bit-equal: " in done.stdout
        assert "the run goes on, or its server was killed" in done.stdout
        run.at_round(int(run.status()["round"]) + 5)
        run.server.send_signal(signal.SIGKILL)
        until(lambda: run.server.poll() is not None, "the server's death")
        before = names(run.run_dir)
        judgement = replayed(run.run_dir)
        assert judgement.verdict is Verdict.BIT_EQUAL
        assert judgement.rounds >= 20
        assert names(run.run_dir) == before
