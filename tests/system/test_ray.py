"""`paceline ray` on a real Ray cluster of two nodes on this machine, one of which leaves in the midst of a run."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paceline.errors import UnavailableError, UsageError
from paceline.server.ledger_reader import LedgerReader
from tests.system.cluster import ROOT, environment, paceline, until

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(300)]

# A process of its own keeps the cluster: Ray's library leaves threads and files in whoever does. It says the address,
# then takes the second node away when it is told a line.
KEEPER = """
import sys
import ray.cluster_utils
cluster = ray.cluster_utils.Cluster(
    initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False, "object_store_memory": 80 << 20}
)
second = cluster.add_node(num_cpus=2, object_store_memory=80 << 20)
print(cluster.address, flush=True)
if sys.stdin.readline():
    cluster.remove_node(second, allow_graceful=False)
    print("removed", flush=True)
    sys.stdin.readline()
cluster.shutdown()
"""
ARGS = ("--workers", "2", "--cpus-per-worker", "1", "--tasks", "6", "--micro-batch", "8", "--sums", "exact")


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    pytest.importorskip("ray", reason="ray is not installed: pip install 'paceline[ray]'")
    # Its sockets' names would be too long in tmp_path.
    folder = tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)
    env = environment() | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": folder.name}
    with (tmp_path / "keeper.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", KEEPER],
            env=env,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.communicate(timeout=60)
        folder.cleanup()


def told(process: subprocess.Popen[str], pattern: str) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        found = re.fullmatch(pattern, line.strip())
        if found:
            return found[0]
    raise AssertionError(f"the keeper of the cluster ended with {process.wait()}")


def ledger_of(run: Path) -> dict[str, Any]:
    with contextlib.suppress(UsageError), LedgerReader(run / "ledger.sqlite") as ledger:
        return {"rounds": [record.round for record in ledger.rounds()], "workers": ledger.workers()}
    return {"rounds": [], "workers": []}


def test_a_run_outlives_a_node_and_mistakes_end_it(tmp_path: Path, keeper: subprocess.Popen[str]) -> None:
    address = told(keeper, r"[0-9.]+:\d+")
    run = tmp_path / "run"
    command = ["ray", "tests/jobs.py:DigitsLike", "--address", address, "--run-dir", str(run), *ARGS]
    with (tmp_path / "ray.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "paceline.cli", *command, "--rounds", "3000", "--policy", "uniform"],
            cwd=ROOT,
            env=environment(),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        until(lambda: len(ledger_of(run)["rounds"]) > 5, "rounds of two nodes", 120)
        assert keeper.stdin is not None
        keeper.stdin.write("\n")
        keeper.stdin.flush()
        told(keeper, "removed")
        until(lambda: "lost" in [w.state for w in ledger_of(run)["workers"]], "a worker that is lost", 60)
        # Of one name there come two processes, the second of them on the node that is left.
        until(lambda: [w.state for w in ledger_of(run)["workers"]].count("ready") == 2, "a worker placed anew", 120)
        assert len(ledger_of(run)["workers"]) == 3
        before = len(ledger_of(run)["rounds"])
        until(lambda: len(ledger_of(run)["rounds"]) > before + 5, "rounds of one node", 120)
        process.terminate()
        assert process.wait(60) == 0, (tmp_path / "ray.log").read_text()
    finally:
        process.kill()
    found = ledger_of(run)
    assert found["rounds"] == list(range(1, len(found["rounds"]) + 1))
    assert {worker.name for worker in found["workers"]} == {"w1", "w2"}
    assert len({worker.address.split()[0] for worker in found["workers"]}) == 1  # nodes of one machine
    # A job whose workers cannot build it: there is nothing to start again.
    wrong = paceline("ray", "tests/server/hf_job.py:Missing", "--address", address, *ARGS, patience_s=120)
    assert wrong.returncode == UsageError.exit_code, wrong.stderr


def test_a_cluster_that_is_not_there_is_named() -> None:
    pytest.importorskip("ray")
    done = paceline("ray", "tests/jobs.py:DigitsLike", "--address", "127.0.0.1:1", *ARGS, patience_s=120)
    assert done.returncode == UnavailableError.exit_code, done.stderr
    assert "Ray cluster '127.0.0.1:1' cannot be reached" in done.stderr
