"""The adapters' examples: trained over three unequal workers to a falling loss, and replayed to the bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.system.cluster import paceline

pytestmark = [pytest.mark.slow, pytest.mark.system, pytest.mark.timeout(300)]


@pytest.mark.parametrize(
    ("library", "job", "micro_batch", "rounds", "metric"),
    [
        ("lightning", "examples/lightning_digits.py:job", "32", "60", "val_accuracy"),
        ("transformers", "examples/hf_gpt.py:job", "4", "30", "loss"),
    ],
)
def test_an_example_learns_on_unequal_workers_and_its_replay_is_bit_equal(
    library: str, job: str, micro_batch: str, rounds: str, metric: str, tmp_path: Path
) -> None:
    pytest.importorskip(library)
    pytest.importorskip("sklearn")
    out, run = tmp_path / "out.json", str(tmp_path / "run")
    numbers = ("--tasks", "6", "--micro-batch", micro_batch, "--rounds", rounds, "--eval-every", "15")
    unequal = ("--workers", "3", "--pace", "1,2,4")
    done = paceline("run", job, *numbers, *unequal, "--sums", "exact", "--run-dir", run, "--json", str(out))
    assert done.returncode == 0, done.stderr[-4000:]
    summary = json.loads(out.read_text())
    assert summary["loss"][-1] < 0.85 * summary["loss"][0]
    assert len(summary["workers"]) == 3
    assert metric in summary["metrics"]
    again = paceline("replay", run)
    assert f"bit-equal: {rounds} rounds" in again.stdout, again.stdout + again.stderr
