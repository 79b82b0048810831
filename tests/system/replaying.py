"""Short runs of three unequal workers, and their replay in this process."""

from __future__ import annotations

from pathlib import Path

from paceline.server.past_run import open_run
from paceline.server.replay import Replay
from paceline.server.verdict import Judgement, judge
from tests.system.cluster import paceline

ROUNDS, TASKS = 30, 6
NUMBERS = ("--rounds", str(ROUNDS), "--tasks", str(TASKS), "--micro-batch", "8", "--seed", "2")
# Three unequal workers: none of them waits for the cores only.
UNEQUAL = ("--workers", "3", "--delay", "const:0.001,exp:0.003,uniform:0.002:0.006")


def train(path: Path, job: str, *args: str) -> None:
    done = paceline("run", f"tests/jobs.py:{job}", "--run-dir", str(path), *NUMBERS, *UNEQUAL, *args)
    assert done.returncode == 0, done.stderr[-4000:]


def replayed(path: Path) -> Judgement:
    with open_run(path) as run:
        return judge(run, Replay(run))
