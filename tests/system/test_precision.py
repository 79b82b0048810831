"""What the settings of computing do to a run of real processes, and that a replay knows them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.system.cluster import paceline

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(300)]

JOB = "tests/jobs.py:Steep"
FLAGS = ("--workers", "2", "--pace", "1,3", "--tasks", "4", "--micro-batch", "8", "--sums", "exact", "--seed", "3")


def train(folder: Path, *flags: str) -> dict[str, Any]:
    done = paceline("run", *flags, "--run-dir", str(folder), "--json", str(folder.with_suffix(".json")))
    assert done.returncode == 0, done.stderr
    summary: dict[str, Any] = json.loads(folder.with_suffix(".json").read_text())
    return summary


def test_float16_skips_what_overflows_and_its_replay_and_resumption_give_the_same_bits(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", JOB, *FLAGS, "--precision", "fp16", "--rounds", "24")
    assert 1 <= whole["skipped_updates"] < 12
    assert whole["loss"][-1] < whole["loss"][0]
    again = paceline("replay", str(tmp_path / "whole"))
    assert again.returncode == 0, again.stdout + again.stderr
    # Cut in the midst of the skipping, so that the scale must come out of the checkpoint.
    train(tmp_path / "cut", JOB, *FLAGS, "--precision", "fp16", "--rounds", "2")
    resumed = train(tmp_path / "cut", "--resume", str(tmp_path / "cut"), "--rounds", "24")
    assert resumed["fingerprint"] == whole["fingerprint"]
    assert resumed["skipped_updates"] == whole["skipped_updates"]
