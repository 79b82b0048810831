"""deploy/slurm/paceline.sbatch: read by shellcheck, and run with a stand-in for Slurm's own commands."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from paceline.errors import UsageError
from paceline.server.ledger_reader import LedgerReader
from tests.system.cluster import ROOT, environment, until

SCRIPT = ROOT / "deploy" / "slurm" / "paceline.sbatch"

# As Slurm would on two tasks: each with its number, and what the script exports.
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
for rank in 0 1; do SLURM_PROCID=$rank "$@" & done
wait
"""
SCONTROL = """#!/bin/bash
echo "$@" >>"$REQUEUED"
"""


def test_shellcheck_has_nothing_to_say() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(["shellcheck", "-s", "bash", str(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def slurm(folder: Path) -> dict[str, str]:
    """Give an environment with the stand-ins in its PATH."""
    tools = folder / "bin"
    tools.mkdir()
    # This machine's own name need not be known to it.
    stand_ins = {"srun": SRUN, "scontrol": SCONTROL, "hostname": "#!/bin/bash\necho localhost\n"}
    for name, text in stand_ins.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    return environment() | {
        "PATH": f"{tools}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "SLURM_JOB_ID": str(os.getpid()),
        "REQUEUED": str(folder / "requeued"),
        "RUN": str(folder / "run"),
        "JOB": "tests/jobs.py:DigitsLike",
        "WORKER": "--device cpu --delay const:0.01",
    }


def rounds_of(run: Path) -> list[int]:
    try:
        with LedgerReader(run / "run" / "ledger.sqlite") as ledger:
            return [record.round for record in ledger.rounds()]
    except UsageError:
        return []


def start(env: dict[str, str], log: Path, rounds: int) -> subprocess.Popen[bytes]:
    args = ("--rounds", str(rounds), "--tasks", "4", "--micro-batch", "8", "--min-workers", "2")
    with log.open("wb") as file:
        return subprocess.Popen(
            ["bash", str(SCRIPT), *args], cwd=ROOT, env=env, stdout=file, stderr=subprocess.STDOUT, process_group=0
        )


@pytest.mark.slow
@pytest.mark.system
@pytest.mark.timeout(240)
def test_a_job_whose_time_is_up_is_queued_again_and_goes_on(tmp_path: Path) -> None:
    env, log = slurm(tmp_path), tmp_path / "log"
    first = start(env, log, rounds=100_000)
    try:
        until(lambda: len(rounds_of(tmp_path / "run")) > 5, "five rounds", 90)
        first.send_signal(signal.SIGTERM)
        assert first.wait(60) == 0, log.read_text()
    finally:
        # Nobody of its group is left behind, whatever happened.
        if first.poll() is None:
            os.killpg(first.pid, signal.SIGKILL)
    assert (tmp_path / "requeued").read_text().split() == ["requeue", env["SLURM_JOB_ID"]]
    reached = rounds_of(tmp_path / "run")[-1]
    second = start(env, log, rounds=reached + 5)
    assert second.wait(90) == 0, log.read_text()
    assert rounds_of(tmp_path / "run") == list(range(1, reached + 6))
    with LedgerReader(tmp_path / "run" / "run" / "ledger.sqlite") as ledger:
        assert [life.resumed_from for life in ledger.lives()] == [None, reached]
        assert {worker.name for worker in ledger.workers()} == {"localhost-0", "localhost-1"}


def test_without_a_job_it_says_what_is_missing(tmp_path: Path) -> None:
    env = {name: value for name, value in slurm(tmp_path).items() if name != "JOB"}
    done = subprocess.run(["bash", str(SCRIPT)], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "expected JOB" in done.stderr
