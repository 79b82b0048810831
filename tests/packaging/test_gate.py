"""What CI runs is all there is: every test belongs to exactly one of `make test` and `make test-slow`."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def selected(target: str) -> str:
    """Give the expression of markers that a target of the Makefile selects tests with; nothing else may narrow them."""
    # Not what the make that runs this test was given.
    clean = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MFLAGS", "MAKELEVEL"}}
    asked = ["make", "-n", target, "PYTEST_JOBS=2", "PYTEST_ARGS="]
    done = subprocess.run(asked, cwd=ROOT, env=clean, capture_output=True, text=True, check=True)
    (line,) = (line for line in done.stdout.splitlines() if " -m pytest " in line)
    words = shlex.split(line)
    options = words[words.index("pytest") + 1 :]
    assert options[:-1] == ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder", "-m"]
    return options[-1]


def test_quick_and_slow_tests_together_are_all_tests(pytestconfig: pytest.Config) -> None:
    assert (selected("test"), selected("test-slow")) == ("not slow", "slow")
    assert pytestconfig.getini("testpaths") == ["tests"]
    assert " -m " not in " ".join(pytestconfig.getini("addopts"))


def test_ci_runs_both_halves() -> None:
    commands = re.findall(r"^make .*$", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    assert commands == ["make test", "make test-slow"]
