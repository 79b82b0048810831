"""The ATA paper's figures as PNG files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paceline.simulation.experiments.document import complete_results
from paceline.simulation.experiments.experiment import Experiment, Variant
from paceline.simulation.experiments.quadratic import Quadratic
from paceline.simulation.experiments.results import PolicyResult
from paceline.simulation.experiments.running import Outcome

Floats = npt.NDArray[np.float64]


def plot(experiment: Experiment, outcome: Outcome, curve: Mapping[str, Any] | None, folder: Path) -> list[Path]:
    """Draw loss against time and worker time, average round time, and regret.

    Args:
        curve: rounds and losses of a trained model; None: the quadratic's, where the preset has it.
        folder: is there.

    Returns:
        the files, in this order; without the losses where there is no loss curve.
    """
    found = [(variant, complete_results(experiment, outcome, variant)) for variant in experiment.variants]
    lines = [_Line(place, variant, results) for place, (variant, results) in enumerate(found) if results]
    title = f"{experiment.preset.name}, n = {experiment.laws.workers}, B = {experiment.tasks}"
    paths = []
    loss = _loss(experiment, curve)
    along = [line for line in lines if experiment.shares_loss_curve(line.policy)]
    if loss is not None:
        for name, label, total in (
            ("loss-against-time", "run time (s)", lambda at: at.time_s),
            ("loss-against-worker-time", "worker time (s)", lambda at: at.work_s),
        ):
            paths.append(_draw(folder / f"{name}.png", title, (label, loss[0]), _losses(along, loss[1], total)))
    paths.append(_draw(folder / "average-round-time.png", title, ("round", "average time of a round (s)"),
                       lambda axes: _round_times(axes, lines)))  # fmt: skip
    paths.append(_draw(folder / "average-regret.png", title, ("round", "average proxy regret (s)"),
                       lambda axes: _average_regret(axes, lines)))  # fmt: skip
    paths.append(_draw(folder / "cumulative-regret.png", title, ("round", "cumulative proxy regret (s)"),
                       lambda axes: _cumulative_regret(axes, lines)))  # fmt: skip
    return paths


def _draw(path: Path, title: str, labels: tuple[str, str], fill: Callable[[Axes], None]) -> Path:
    figure = Figure(figsize=(7.0, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.set(title=title, xlabel=labels[0], ylabel=labels[1])
    axes.grid(alpha=0.3)
    fill(axes)
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
    figure.savefig(path, dpi=150)
    return path


class _Line:
    """A variant with its results, and how it looks in every figure."""

    def __init__(self, place: int, variant: Variant, results: list[PolicyResult]) -> None:
        self.results = results
        self.policy = variant.policy
        label = f"{variant.policy}, prior {variant.prior:,}" if variant.prior else variant.policy
        self.look: dict[str, Any] = {"label": label, "color": f"C{place % 10}"}


Loss = Callable[[PolicyResult], tuple[Floats, Floats]]


def _loss(experiment: Experiment, curve: Mapping[str, Any] | None) -> tuple[str, Loss] | None:
    """Give the axis' label, and what maps a result to rounds and the losses after them."""
    if curve is not None:
        rounds, losses = np.array(curve["rounds"], dtype=np.float64), np.array(curve["losses"])
        return f"training loss ({curve['data']})", lambda result: (
            rounds[rounds <= result.rounds],
            losses[rounds <= result.rounds],
        )
    if experiment.preset.loss != "quadratic":
        return None
    problem = Quadratic(tasks=experiment.tasks)

    def of_quadratic(result: PolicyResult) -> tuple[Floats, Floats]:
        at = result.trajectory.rounds
        return at.astype(np.float64), problem.losses(at, experiment.seeds[0])

    return "f(x) - min f", of_quadratic


def _losses(lines: Sequence[_Line], loss: Loss, total: Callable[[Any], Floats]) -> Callable[[Axes], None]:
    def fill(axes: Axes) -> None:
        for line in lines:
            at = line.results[0].trajectory
            rounds, losses = loss(line.results[0])
            axes.plot(np.interp(rounds, np.r_[0, at.rounds], np.r_[0.0, total(at)]), losses, **line.look)
        axes.set_yscale("log")

    return fill


def _round_times(axes: Axes, lines: Sequence[_Line]) -> None:
    for line in lines:
        at = line.results[0].trajectory
        axes.plot(at.rounds, at.time_s / at.rounds, **line.look)
    axes.set_xscale("log")


def _average_regret(axes: Axes, lines: Sequence[_Line]) -> None:
    for line in lines:
        at = line.results[0].trajectory
        if not np.isnan(at.regret_s).all():
            axes.plot(at.rounds, at.regret_s / at.rounds, **line.look)
    axes.set_xscale("log")


def _cumulative_regret(axes: Axes, lines: Sequence[_Line]) -> None:
    """Draw the mean over the repetitions, with bars of one standard deviation where there are several."""
    for line in lines:
        at = line.results[0].trajectory
        regrets = np.array([result.trajectory.regret_s for result in line.results])
        if np.isnan(regrets).all():
            continue
        mean = regrets.mean(axis=0)
        axes.plot(at.rounds, mean, **line.look)
        if len(line.results) > 1:
            some = np.linspace(0, len(mean) - 1, 12).astype(int)
            deviation = regrets.std(axis=0, ddof=1)
            axes.errorbar(at.rounds[some], mean[some], deviation[some], fmt="none", capsize=3, color=line.look["color"])
