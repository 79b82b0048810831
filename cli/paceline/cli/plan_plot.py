"""The figure of `paceline plan`: each way's time against its price."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from paceline.simulation.experiments.worth import Way


def draw(found: Sequence[Way], folder: Path) -> Path:
    """Draw each way twice: as all machines are rented, and as they are paid by use."""
    figure = Figure(figsize=(7.0, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.set(title="an update", xlabel="time (s)", ylabel="price of 1000 updates")
    axes.grid(alpha=0.3)
    for number, way in enumerate(found):
        colour = f"C{number}"
        axes.plot([way.round_s] * 2, [1000 * way.rented, 1000 * way.used], color=colour, linewidth=1)
        axes.plot(way.round_s, 1000 * way.rented, "o", color=colour, label=way.name)
        axes.plot(way.round_s, 1000 * way.used, "o", color=colour, fillstyle="none")
    axes.plot([], [], "o", color="grey", label="rented")
    axes.plot([], [], "o", color="grey", fillstyle="none", label="by use")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.legend()
    path = folder / "plan.png"
    figure.savefig(path, dpi=150)
    return path
