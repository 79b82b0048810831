"""The CMAB paper's figures as PNG files: regret, loss against employments, loss against time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paceline.simulation.experiments.cmab import CmabResult, CmabRun


def plot_cmab(result: CmabResult, folder: Path) -> list[Path]:
    """Draw F1 cumulative regret, F2 loss against employments, F3 loss against time; means over the repetitions.

    Args:
        folder: is there.

    Returns:
        the files, in this order.
    """
    settings = result.settings
    title = f"cmab, n = {settings.workers}, b = {settings.tasks}, {settings.repeats} repetitions"
    gap = "F(w) - min F"
    figures: tuple[tuple[str, str, str, Callable[[Axes], None]], ...] = (
        ("regret", "round", "cumulative regret (s)", lambda axes: _regret(axes, result)),
        ("loss-against-employments", "employments", gap, lambda axes: _loss_against_employments(axes, result)),
        (
            "loss-against-time",
            "run time (s)",
            gap,
            lambda axes: _loss_against_time(axes, result),
        ),
    )
    paths = []
    for name, across, up, fill in figures:
        figure = Figure(figsize=(7.0, 4.5), layout="constrained")
        axes = figure.add_subplot()
        axes.set(title=title, xlabel=across, ylabel=up, yscale="log")
        axes.grid(alpha=0.3)
        fill(axes)
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
        paths.append(folder / f"{name}.png")
        figure.savefig(paths[-1], dpi=150)
    return paths


def _regret(axes: Axes, result: CmabResult) -> None:
    """Draw the regrets above zero, and the bound, which is orders of magnitude above them."""
    for run in result.runs:
        regret_s = run.mean.trajectory.regret_s
        shown = regret_s > 0.0  # Not the oracle's, nor nan.
        if shown.any():
            axes.plot(result.rounds[: shown.size][shown], regret_s[shown], label=run.policy)
    if not np.isnan(result.bound_s).any():
        axes.plot(result.rounds, result.bound_s, "k--", label="theorem 2, for cmab-lcb")
    axes.set_xscale("log")


def _loss_against_time(axes: Axes, result: CmabResult) -> None:
    for run in result.runs:
        axes.plot(run.mean.trajectory.time_s, result.gaps[: run.employments.size], label=run.policy)


def _loss_against_employments(axes: Axes, result: CmabResult) -> None:
    """Draw one curve for all policies that employ as many; up to what the thriftiest have spent."""
    curves: dict[bytes, list[CmabRun]] = {}
    for run in result.runs:
        curves.setdefault(run.employments.tobytes(), []).append(run)
    for runs in curves.values():
        employments = runs[0].employments
        axes.plot(employments, result.gaps[: employments.size], label=",\n".join(run.policy for run in runs))
    if result.runs:
        axes.set_xlim(0, 1.05 * min(int(run.employments[-1]) for run in result.runs))
