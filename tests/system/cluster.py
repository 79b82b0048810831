"""Real servers and workers as processes, for tests: started, watched through Status, cut off, killed, ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from paceline.errors import UnavailableError
from paceline.server.status import fetch_status, status_to_dict

ROOT = Path(__file__).parents[2]
PATIENCE_S = 90.0


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket() as listener:
        listener.bind((host, 0))
        return int(listener.getsockname()[1])


def until(condition: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
    """Wait until a condition gives something true, and give it."""
    deadline = time.monotonic() + patience_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {patience_s:g} s in vain: {what}")
        time.sleep(0.02)


def environment() -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PACELINE_")}
    return {**clean, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", "COLUMNS": "200", "PACELINE_LOG": "text"}


class Cluster:
    """One server and its workers.

    Args:
        folder: logs and the run directory go there.
        job: spec of the job, relative to the repository.
        server_args: further arguments of `paceline server`.
        json_log: the processes log as JSON lines, which `logged` reads.
        host: where the server listens.
        resumed: go on with the run in `folder`/run, as the second life.
        run_dir: default: in the folder.
    """

    def __init__(
        self,
        folder: Path,
        job: str,
        *server_args: str,
        json_log: bool = False,
        host: str = "127.0.0.1",
        resumed: bool = False,
        run_dir: Path | None = None,
    ) -> None:
        self.folder = folder
        self.job = job
        self.run_dir = run_dir or folder / "run"
        self.environment = environment() | ({"PACELINE_LOG": "json"} if json_log else {})
        self.address = f"{host}:{free_port(host)}"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.lives = 1
        bind = ["--bind", self.address, "--run-dir", str(self.run_dir)]
        if resumed:
            self.resume(*server_args)
        else:
            self.server = self._start("server", ["server", job, *bind, *server_args])

    def _start(self, name: str, args: list[str], inside: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [*inside, sys.executable, "-m", "paceline.cli", *args],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
                cwd=ROOT,
            )
        self.processes[name] = process
        return process

    def worker(
        self,
        name: str,
        *args: str,
        address: str | None = None,
        job: str | None = None,
        inside: Sequence[str] = (),
    ) -> subprocess.Popen[bytes]:
        """Start a worker; `inside` is a command that runs it, such as in a network of its own."""
        given = ["worker", address or self.address, job or self.job, "--name", name, *args]
        key = name
        while key in self.processes:
            key += "+"
        return self._start(key, given, inside)

    def resume(self, *args: str) -> None:
        """Start the server anew, which was killed or has ended, on the same port; its log is another one."""
        self.start_again("--resume", str(self.run_dir), *args)

    def start_again(self, *args: str) -> None:
        """The same, with these arguments."""
        self.lives += 1
        given = ["server", *args, "--bind", self.address, "--run-dir", str(self.run_dir)]
        self.server = self._start(f"server-{self.lives}", given)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def logged(self, event: str = "") -> list[dict[str, Any]]:
        """Give the present server's log, or one kind of it, with the time of the wall clock (seconds) as `at`."""
        whole = self.log("server" if self.lives == 1 else f"server-{self.lives}").rpartition("\n")[0]
        lines = [json.loads(line) for line in whole.splitlines() if line.startswith("{")]
        return [
            {**line, "at": datetime.fromisoformat(line["timestamp"]).timestamp()}
            for line in lines
            if event in ("", line["event"])
        ]

    def status(self) -> dict[str, Any]:
        """Give the status; empty while the server cannot be reached."""
        try:
            return status_to_dict(fetch_status(self.address, timeout_s=2.0))
        except UnavailableError:
            return {}

    def at_round(self, number: int) -> None:
        def reached() -> bool:
            assert self.server.poll() is None, f"the server ended early:\n{self.all_logs()}"
            return bool(self.status().get("round", 0) >= number)

        until(reached, f"round {number}\n{self.all_logs()}")

    def worker_state(self, name: str) -> str:
        return next((str(w["state"]) for w in self.status().get("workers", []) if w["name"] == name), "unknown")

    def all_logs(self) -> str:
        return "\n".join(f"--- {name}\n{self.log(name)[-2000:]}" for name in self.processes)

    def end(self, *names: str, code: int = 0, patience_s: float = PATIENCE_S) -> None:
        """Wait for processes to end with this exit code; without names, for all that live."""
        for name in names or tuple(self.processes):
            process = self.processes[name]
            if process.returncode is not None:
                continue
            try:
                got = process.wait(patience_s)
            except subprocess.TimeoutExpired:
                raise AssertionError(f"{name} did not end\n{self.all_logs()}") from None
            assert got == code, f"{name} ended with {got}, expected {code}\n{self.all_logs()}"

    def kill_all(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGCONT)
                    process.kill()
                process.wait(10)

    def model(self) -> dict[str, torch.Tensor]:
        return load_file(self.run_dir / "model.safetensors")


@contextlib.contextmanager
def cluster(folder: Path, job: str, *server_args: str, **options: Any) -> Iterator[Cluster]:
    """Start a cluster, and leave no process behind; for the arguments see Cluster."""
    made = Cluster(folder, job, *server_args, **options)
    try:
        yield made
    finally:
        made.kill_all()


def paceline(*args: str, patience_s: float = 240.0, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "paceline.cli", *args],
        capture_output=True,
        text=True,
        timeout=patience_s,
        env=environment(),
        cwd=ROOT,
        check=False,
        **kwargs,
    )


def assert_bit_equal(got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Compare every tensor that was saved, bit for bit."""
    missing = {name for name in expected if name not in got} - shared_names(expected)
    assert not missing, f"not saved: {missing}"
    for name, tensor in got.items():
        assert tensor.dtype == expected[name].dtype, name
        assert torch.equal(tensor, expected[name]), f"{name}: {(tensor.double() - expected[name].double()).abs().max()}"


def shared_names(state: dict[str, torch.Tensor]) -> set[str]:
    """Name tensors that equal an earlier one: tied ones are saved once."""
    seen: list[tuple[str, torch.Tensor]] = []
    shared = set()
    for name, tensor in state.items():
        if any(tensor.shape == other.shape and torch.equal(tensor, other) for _, other in seen):
            shared.add(name)
        seen.append((name, tensor))
    return shared
