"""The demo runs, says what it measured, and notices a broken promise."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from examples import demo
from paceline.version import __version__

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(300)]
ROUNDS = 5


@pytest.fixture(scope="module")
def shown(wheel: Path, installed: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """Run the demo as `make demo` does, but few rounds, and from the sdist on an installed wheel.

    Returns:
        what it printed, and its figures.
    """
    folder = tmp_path_factory.mktemp("demo")
    # Nothing of the sources but the examples is there to be imported.
    shutil.copytree(wheel.with_name(f"paceline-{__version__}") / "examples", folder / "examples")
    done = subprocess.run(
        [str(installed), "examples/demo.py", "--rounds", str(ROUNDS), "--folder", str(folder)],
        cwd=folder,
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads((folder / "summary.json").read_text())


def test_ata_empirical_and_uniform_make_the_same_model(shown: tuple[str, dict[str, Any]]) -> None:
    _, figures = shown
    fingerprints = {policy: summary["fingerprint"] for policy, summary in figures["policies"].items()}
    assert fingerprints["ata-empirical"] == fingerprints["uniform"]
    for policy in demo.POLICIES:
        assert figures["policies"][policy]["rounds"] == ROUNDS
        assert figures["policies"][policy]["tasks"]["used"] == ROUNDS * demo.TASKS
        assert Path(figures["policies"][policy]["model"]).is_file()


def test_the_tables_show_what_was_measured(shown: tuple[str, dict[str, Any]]) -> None:
    text, figures = shown
    for policy, summary in figures["policies"].items():
        (row,) = (line for line in text.splitlines() if line.startswith(f"│ {policy} "))
        assert f" {summary['wall_s']:.1f} " in row
        assert f" {summary['worker_s']:.1f} " in row
        assert summary["fingerprint"] in row
    for worker in figures["policies"]["ata-empirical"]["workers"]:
        (row,) = (line for line in text.splitlines() if line.startswith(f"│ {worker['name']} "))
        assert f" {worker['mean_task_s']:.4f} " in row
    assert "gave the same model, bit for bit" in " ".join(text.split())
    fastest = min(figures["policies"], key=lambda policy: float(figures["policies"][policy]["wall_s"]))
    assert f"Fastest here: {fastest}." in " ".join(text.split())


def test_a_broken_promise_is_noticed(shown: tuple[str, dict[str, Any]]) -> None:
    _, figures = shown
    summaries = copy.deepcopy(figures["policies"])
    assert demo.broken_promises(summaries) == []
    summaries["uniform"]["fingerprint"] = "another"
    summaries["greedy"] |= {"rounds": demo.ROUNDS, "metrics": {"accuracy": 0.96}}
    models, accuracy = demo.broken_promises(summaries)
    assert "different models" in models
    assert "greedy reached 96.0%" in accuracy
