"""The papers' experiments by name: who works, how fast, under which policies, and for how long."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from paceline.errors import UsageError
from paceline.nearest import did_you_mean
from paceline.simulation.shapes import Laws, Shape, five_distributions, scaled

ALL_FIVE = ("ata", "ata-empirical", "greedy", "uniform", "fixed")


def _shifted(means_s: Sequence[float]) -> Laws:
    return scaled(Shape("shifted-exp"), means_s)


def _exponential(means_s: Sequence[float]) -> Laws:
    return scaled(Shape("exp"), means_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One experiment of a paper, with the paper's numbers as defaults.

    Attributes:
        does: what it does, in a line; `reproduces`: figure and table.
        workers, tasks, rounds, repeats: defaults.
        mean_s: of worker i, from 1.
        laws: of workers with given means; `law` says in words which.
        loss: the loss curve that all policies share: "quadratic", "cnn", or "" for none.
        priors: rounds of learning before the clock starts; each is a run of its own.
    """

    name: str
    does: str
    reproduces: str
    workers: int
    mean_s: Callable[[int], float]
    law: str = "shifted-exp"
    laws: Callable[[Sequence[float]], Laws] = _shifted
    tasks: int = 23
    rounds: int = 3_000_000
    policies: tuple[str, ...] = ALL_FIVE
    loss: str = ""
    priors: tuple[int, ...] = (0,)
    repeats: int = 1

    def means_s(self, workers: int) -> tuple[float, ...]:
        """Give the means of so many workers."""
        return tuple(self.mean_s(worker) for worker in range(1, workers + 1))


_PRESETS = (
    Preset(
        name="ata-sqrt",
        does="task times 29 sqrt(i) + Exp(29 sqrt(i)): workers that differ little",
        reproduces="ATA paper, figure 1 and table 1 (there with 17, 51, 153 and 459 workers)",
        workers=17,
        mean_s=lambda i: 58.0 * i**0.5,
        loss="quadratic",
    ),
    Preset(
        name="ata-linear",
        does="task times 29 i + Exp(29 i): workers that differ much",
        reproduces="ATA paper, figure 2 and table 2 (there with 17, 51 and 153 workers)",
        workers=17,
        mean_s=lambda i: 58.0 * i,
        loss="quadratic",
    ),
    Preset(
        name="ata-distributions",
        does="five laws side by side: exponential, uniform, half-normal, lognormal, gamma",
        reproduces="ATA paper, figure 3 (there with 15, 45 and 150 workers)",
        workers=15,
        mean_s=lambda i: 58.0 * (5 * ((i - 1) // 5) + 1),
        law="five in turn",
        laws=five_distributions,
        loss="quadratic",
    ),
    Preset(
        name="ata-regret",
        does="how much the choices of ATA cost beyond the best ones: cumulative proxy regret",
        reproduces="ATA paper, figure 4",
        workers=20,
        mean_s=lambda i: 2.0 * i,
        law="exp",
        laws=_exponential,
        tasks=5,
        rounds=4_000_000,
        policies=("ata", "ata-empirical"),
        repeats=5,
    ),
    Preset(
        name="ata-cifar",
        does="a CNN's loss curve, trained once, against each policy's clock; task times as in ata-linear",
        reproduces="ATA paper, figure 5 (there CIFAR-100, with 17, 51 and 153 workers)",
        workers=17,
        mean_s=lambda i: 58.0 * i,
        rounds=100_000,
        loss="cnn",
    ),
    Preset(
        name="ata-prior",
        does="ATA that has learned for P rounds before the clock starts; task times as in ata-linear",
        reproduces="ATA paper, figure 6",
        workers=17,
        mean_s=lambda i: 58.0 * i,
        rounds=100_000,
        policies=("ata", "ata-empirical"),
        loss="cnn",
        priors=(0, 10_000, 100_000, 1_000_000),
    ),
)

PRESETS: Mapping[str, Preset] = MappingProxyType({preset.name: preset for preset in _PRESETS})


def preset(name: str, others: Sequence[str] = ()) -> Preset:
    """Find a preset.

    Args:
        others: names that are presets too, for the message.

    Raises:
        UsageError: there is none of this name.
    """
    found = PRESETS.get(name)
    if found is None:
        known = [*PRESETS, *others]
        hint = did_you_mean(name, known)
        raise UsageError(f"preset is {name!r}: expected one of {', '.join(known)}{hint}")
    return found
