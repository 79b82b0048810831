"""The real command on a real (pseudo) terminal: widths, colours, log files, and Ctrl-C at any moment."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.terminal import ESCAPES, OnTerminal
from tests.system.cluster import paceline

pytestmark = [
    pytest.mark.slow,
    pytest.mark.system,
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
]

RUN = ("run", "tests/jobs.py:DigitsLike", "--tasks", "8", "--micro-batch", "8", "--price", "2")


@pytest.mark.parametrize("columns", [60, 80, 160])
def test_a_run_fits_its_terminal(tmp_path: Path, columns: int) -> None:
    shown = OnTerminal(columns, *RUN, "--rounds", "200", "--run-dir", str(tmp_path / "r"))
    assert shown.end() == 0
    text = ESCAPES.sub("", shown.output)
    drawn = [line for line in text.replace("\r", "\n").splitlines() if line.startswith(("round ", "w1 ", "tasks now"))]
    assert any(" of 200, " in line and " to go" in line for line in drawn)
    assert max(map(len, drawn)) <= columns
    assert any(line.startswith("w1  ") for line in drawn) == (columns == 160)
    assert any(line.startswith("tasks now: w1 ") for line in drawn) == (columns < 160)
    if columns == 160:
        assert "samples/s" in text
        assert "cost " in text
    assert "add a worker to it with: paceline worker 127.0.0.1:" in text.replace("\r\n", "")
    # What is longer is a line that stays, which the terminal breaks, so that it can be copied whole.
    others = text.replace("\r", "\n").splitlines()
    assert all(len(line) <= columns or line.startswith(("server at", "add a worker", "paceline:")) for line in others)


def test_without_colours_there_are_none_but_the_picture_moves(tmp_path: Path) -> None:
    shown = OnTerminal(100, *RUN, "--rounds", "100", "--run-dir", str(tmp_path / "r"), no_color=True)
    assert shown.end() == 0
    codes = set(ESCAPES.findall(shown.output))
    assert codes, "it is drawn anew"
    assert not {code for code in codes if code.endswith("m") and code[2:-1].split(";")[0] in {"30", "31", "32", "38"}}


def test_a_log_file_gets_plain_lines(tmp_path: Path) -> None:
    done = paceline(*RUN, "--rounds", "100", "--run-dir", str(tmp_path / "r"))
    assert done.returncode == 0
    assert "\x1b" not in done.stdout + done.stderr
    assert "\r" not in done.stdout + done.stderr
    assert "add a worker to it with: paceline worker 127.0.0.1:" in done.stderr


# From our first import on: before it, Python itself dies with words of its own. Libraries come one after another, then
# children, then words.
MOMENTS: dict[str, Callable[[OnTerminal], bool]] = {
    "python": lambda shown: shown.maps("_json") or shown.maps("math."),
    "libraries": lambda shown: shown.maps("pydantic_core"),
    "a child": lambda shown: shown.children() >= 1,
    "all children": lambda shown: shown.children() >= 3,
    "server": lambda shown: "server at" in shown.output,
    "training": lambda shown: "rounds/s" in shown.output,
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_ends_a_run_without_a_traceback(tmp_path: Path, moment: str) -> None:
    shown = OnTerminal(160, *RUN, "--rounds", "100000", "--run-dir", str(tmp_path / "r"))
    interrupted(shown, moment)


WORKER_MOMENTS = {name: MOMENTS[name] for name in ("python", "libraries")} | {
    "torch": lambda shown: shown.maps("libtorch_cpu"),
    "grpc": lambda shown: shown.maps("cygrpc"),
    "waiting": lambda shown: "waiting for 127.0.0.1:1" in shown.output,
}


@pytest.mark.parametrize("moment", WORKER_MOMENTS)
def test_ctrl_c_ends_a_worker_without_a_traceback(moment: str) -> None:
    shown = OnTerminal(160, "worker", "127.0.0.1:1", "tests/jobs.py:DigitsLike", "--name", "w1")
    interrupted(shown, moment, WORKER_MOMENTS)


def interrupted(shown: OnTerminal, moment: str, moments: dict[str, Callable[[OnTerminal], bool]] = MOMENTS) -> None:
    try:
        shown.read(until=lambda: moments[moment](shown), patience_s=60.0)
        shown.process.send_signal(signal.SIGINT)
    finally:
        code = shown.end()
    assert "Traceback" not in shown.output, shown.output
    # Python itself dies of the signal before it has begun to listen for it.
    assert code in (130, -signal.SIGINT), shown.output
