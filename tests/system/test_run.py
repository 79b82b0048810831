"""`paceline run`: processes that start together and end together, whatever ends them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from paceline.server.rundir import RunDir
from paceline.server.status import fetch_status
from tests.system.cluster import PATIENCE_S, ROOT, environment, free_port, paceline, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

JOB = "tests/jobs.py:Tiny"
# A job's file finds what lies beside it; these borrow from the tests.
HEAD = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom tests.jobs import Tiny\n"
# So slow that it is still running when a test interferes with it.
LONG = ("--rounds", "100000", "--delay", "const:0.02", "--tasks", "4")


class Running:
    """A `paceline run` in progress, whose processes carry a mark in their environment."""

    def __init__(self, folder: Path, *args: str, job: str = JOB) -> None:
        self.folder = folder
        self._mark = f"PACELINE_TEST_MARK={uuid.uuid4()}"
        name, _, value = self._mark.partition("=")
        self._err = (folder / "err").open("w")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "paceline.cli", "run", job, "--run-dir", str(folder / "run"), *args],
            stdout=subprocess.PIPE,
            stderr=self._err,
            env={**environment(), name: value},
            cwd=ROOT,
            text=True,
        )

    @property
    def err(self) -> str:
        return (self.folder / "err").read_text()

    def pids(self, role: str = "") -> list[int]:
        """Find its living processes: all, or the children of one role."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if (
                    entry.name.isdecimal()
                    and self._mark.encode() in (entry / "environ").read_bytes()
                    and (not role or f"\0{role}\0".encode() in (entry / "cmdline").read_bytes())
                ):
                    found.append(int(entry.name))
        return sorted(found)

    def at_round(self, number: int) -> None:
        def reached() -> bool:
            assert self.process.poll() is None, self.err
            address = next((line.split()[2].strip(";") for line in self.err.splitlines() if "server at" in line), None)
            with contextlib.suppress(Exception):
                return address is not None and fetch_status(address, 2.0).round >= number
            return False

        until(reached, f"round {number}")

    def end(self) -> int:
        return self.process.wait(PATIENCE_S)

    def close(self) -> None:
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._err.close()


@contextlib.contextmanager
def running(folder: Path, *args: str, job: str = JOB) -> Iterator[Running]:
    made = Running(folder, *args, job=job)
    try:
        yield made
    finally:
        made.close()


def test_a_run_ends_with_model_summary_and_no_process_left(tmp_path: Path) -> None:
    args = ("--rounds", "6", "--tasks", "5", "--workers", "3", "--pace", "1,2,2", "--seed", "3", "--sums", "exact")
    with running(tmp_path, *args, "--json", str(tmp_path / "out.json")) as run:
        assert run.end() == 0, run.err
        assert run.pids() == []
        assert run.process.stdout is not None
        assert run.process.stdout.read().startswith("paceline: done: ")
    summary = json.loads((tmp_path / "out.json").read_text())
    assert (summary["rounds"], summary["seed"], summary["sums"], summary["policy"]) == (6, 3, "exact", "ata-empirical")
    assert summary["tasks"]["used"] == 30
    assert sorted(worker["name"] for worker in summary["workers"]) == ["w1", "w2", "w3"]
    assert {worker["name"]: worker["pace"] for worker in summary["workers"]} == {"w1": 1.0, "w2": 2.0, "w3": 2.0}
    assert Path(summary["model"]) == tmp_path / "run" / "model.safetensors"
    assert Path(summary["model"]).is_file()
    assert len(summary["loss"]) == 6


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_its_state_saved_and_no_process_left(tmp_path: Path, number: signal.Signals) -> None:
    with running(tmp_path, *LONG, "--json", str(tmp_path / "out.json")) as run:
        run.at_round(3)
        assert len(run.pids("worker")) == 2
        run.process.send_signal(number)
        assert run.end() == 128 + number, run.err
        assert run.pids() == []
    assert (tmp_path / "run" / "model.safetensors").is_file()
    assert json.loads((tmp_path / "out.json").read_text())["outcome"] == "stopped"


def test_ctrl_c_while_it_starts_leaves_no_process(tmp_path: Path) -> None:
    with running(tmp_path, *LONG) as run:
        until(lambda: run.pids("worker"), "a worker process")
        run.process.send_signal(signal.SIGINT)
        assert run.end() == 130
        assert run.pids() == []
    assert "Traceback" not in run.err


def test_killing_it_outright_leaves_no_process(tmp_path: Path) -> None:
    with running(tmp_path, *LONG) as run:
        run.at_round(2)
        assert len(run.pids()) == 4
        # A frozen worker cannot notice anything by itself.
        os.kill(run.pids("worker")[0], signal.SIGSTOP)
        run.process.kill()
        run.process.wait()
        until(lambda: not run.pids(), "the end of all its processes")


def test_a_killed_worker_is_told_of_and_the_run_goes_on(tmp_path: Path) -> None:
    args = ("--rounds", "60", "--delay", "const:0.02", "--tasks", "4", "--json", str(tmp_path / "out.json"))
    with running(tmp_path, *args) as run:
        run.at_round(3)
        os.kill(run.pids("worker")[0], signal.SIGKILL)
        assert run.end() == 0, run.err
    assert "ended: killed by SIGKILL" in run.err
    assert json.loads((tmp_path / "out.json").read_text())["tasks"]["used"] == 240


def test_a_run_whose_workers_are_all_gone_fails(tmp_path: Path) -> None:
    with running(tmp_path, *LONG) as run:
        run.at_round(3)
        for pid in run.pids("worker"):
            os.kill(pid, signal.SIGKILL)
        assert run.end() == 1
        assert run.pids() == []
    assert "paceline: failed: every worker has ended" in run.err
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_a_worker_that_cannot_begin_ends_the_run_with_its_own_traceback(tmp_path: Path) -> None:
    job = tmp_path / "job.py"
    lines = [
        "class Picky(Tiny):",
        "    def dataset(self):",
        "        if 'worker' in sys.argv:",
        "            raise OSError('no data here')",
        "        return super().dataset()",
    ]
    job.write_text(HEAD + "\n".join(lines))
    with running(tmp_path, *LONG, job=f"{job}:Picky") as run:
        assert run.end() == 1
        assert run.pids() == []
    assert "raise OSError('no data here')" in run.err
    assert "before round 1" in run.err.splitlines()[-4]


MISTAKES = {
    "class": ("Nothing", "has no class 'Nothing'", "class Other: pass"),
    "import": ("Job", "importing job.py of the job raised ZeroDivisionError", "x = 1 / 0"),
    "samples": ("Few", "1 sample", f"{HEAD}class Few(Tiny):\n  def dataset(self): return [1]"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_job_is_said_once_and_in_one_line(tmp_path: Path, mistake: str) -> None:
    spec, words, source = MISTAKES[mistake]
    (tmp_path / "job.py").write_text(source)
    done = paceline("run", f"{tmp_path}/job.py:{spec}", "--workers", "2", "--run-dir", str(tmp_path / "run"))
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert words in lines[-1]
    if mistake == "import":
        assert "x = 1 / 0" in done.stderr
        assert "paceline/core" not in done.stderr
        assert "core/paceline" not in done.stderr
    else:
        assert len(lines) == 1, done.stderr
    assert not (tmp_path / "run").exists()


def test_a_directory_that_holds_a_run_is_refused(tmp_path: Path) -> None:
    RunDir.create(tmp_path / "run", JOB).write_settings({"job": JOB}, {}, "", 1)
    again = paceline("run", JOB, "--workers", "1", "--rounds", "1", "--run-dir", str(tmp_path / "run"))
    assert again.returncode == 2
    assert str(tmp_path / "run") in again.stderr
    assert len(again.stderr.splitlines()) == 1, again.stderr


def test_status_shows_a_run_to_people_and_to_programs(tmp_path: Path) -> None:
    with running(tmp_path, *LONG) as run:
        run.at_round(5)
        address = next(line.split()[2].strip(";") for line in run.err.splitlines() if "server at" in line)
        text = paceline("status", address)
        document = paceline("status", address, "--json")
    assert text.returncode == document.returncode == 0, text.stderr + document.stderr
    for words in ("ata-empirical", "training", "w1", "w2", "last decision"):
        assert words in text.stdout
    status = json.loads(document.stdout)
    assert status["state"] == "training"
    assert {worker["name"] for worker in status["workers"]} == {"w1", "w2"}
    assert status["decision"]


def test_status_of_nobody_is_unavailable() -> None:
    done = paceline("status", "127.0.0.1:1", "--timeout", "2")
    assert done.returncode == 69
    assert done.stderr.startswith("paceline: server '127.0.0.1:1'")
    assert len(done.stderr.splitlines()) == 1


def test_a_server_refuses_a_taken_port_and_an_open_bind(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        taken = paceline("server", JOB, "--bind", f"127.0.0.1:{port}", "--run-dir", str(tmp_path / "run"))
    assert taken.returncode == 2
    assert port in taken.stderr
    bold = paceline("server", JOB, "--bind", "0.0.0.0:0", "--run-dir", str(tmp_path / "run"))
    assert bold.returncode == 78
    assert "--insecure" in bold.stderr
    for done in (taken, bold):
        assert len(done.stderr.splitlines()) == 1, done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_server_of_its_own_saves_its_state_and_summary_on_a_signal(
    tmp_path: Path, number: signal.Signals, exit_code: int
) -> None:
    address = f"127.0.0.1:{free_port()}"
    args = ("--bind", address, "--run-dir", str(tmp_path / "run"), "--json", str(tmp_path / "out.json"))
    command = [sys.executable, "-m", "paceline.cli", "server", JOB, *args]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment(), cwd=ROOT, text=True) as server:
        try:
            until(lambda: paceline("status", address, "--timeout", "1").returncode == 0, "a server that answers")
            server.send_signal(number)
            assert server.wait(PATIENCE_S) == exit_code
        finally:
            server.kill()
    assert (tmp_path / "run" / "model.safetensors").is_file()
    assert json.loads((tmp_path / "out.json").read_text())["outcome"] == "stopped"
