"""What runs on a node of a Ray cluster: a `paceline worker` as a process, and nothing else of paceline."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from paceline.cli.child import end_with
from paceline.cli.processes import of_child
from paceline.secret_files import write_secret

_TAIL_LINES = 3


class WorkerProcess:
    """An actor that keeps one worker.

    Args:
        folder: where the job's file is looked for, if this node has it; else in the actor's own folder, which
            `ray job submit --working-dir` fills.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder if Path(folder).is_dir() else None

    def run(self, arguments: Sequence[str], files: Mapping[str, bytes]) -> tuple[int, str]:
        """Run a worker to its end.

        Args:
            arguments: of `paceline worker`.
            files: its certificates, by name.
        Returns:
            its exit code, and its last words.
        """
        device = "cuda" if os.environ.get("CUDA_VISIBLE_DEVICES") else "cpu"
        with tempfile.TemporaryDirectory(prefix="paceline-") as tls:
            for name, data in files.items():
                write_secret(Path(tls) / name, data)
            command = [sys.executable, "-m", "paceline.cli", "worker", *arguments, "--tls-dir", tls, "--device", device]
            environment = of_child(os.environ)
            with tempfile.TemporaryFile("w+") as said:
                end = partial(end_with, os.getpid(), signal.SIGKILL)
                process = subprocess.Popen(command, cwd=self._folder, env=environment, stderr=said, preexec_fn=end)
                code = process.wait()
                said.seek(0)
                return code, " ".join(said.read().splitlines()[-_TAIL_LINES:])
