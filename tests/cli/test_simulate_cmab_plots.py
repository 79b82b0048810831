"""The CMAB figures."""

from __future__ import annotations

from pathlib import Path

from paceline.cli.simulate_cmab_plots import plot_cmab
from paceline.simulation.experiments.cmab import CmabSettings, run_cmab
from paceline.simulation.shapes import parse_shape


def test_three_figures_are_drawn(tmp_path: Path) -> None:
    paths = plot_cmab(run_cmab(CmabSettings(workers=6, tasks=3, rounds=90, repeats=2)), tmp_path)
    assert [path.name for path in paths] == ["regret.png", "loss-against-employments.png", "loss-against-time.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_figures_without_a_bound_or_without_a_learner_are_drawn_too(tmp_path: Path) -> None:
    settings = CmabSettings(workers=6, tasks=3, rounds=90, repeats=1, law=parse_shape("const"), policies=("k-sync",))
    assert len(plot_cmab(run_cmab(settings), tmp_path)) == 3
