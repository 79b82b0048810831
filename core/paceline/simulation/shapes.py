"""Laws of task times in the simulator: a shape, written like ``lognormal:0.5``, scaled to each worker's mean.

A scaled law is a row of numbers (kind, three parameters) that compiled code can draw from; this module only makes the
rows and needs no compiler. Every law's times are ``shift + scale * something``, shift being their infimum:

    kind          time
    CONSTANT      shift
    EXPONENTIAL   shift + scale Exp(1)
    UNIFORM       shift + scale U(0, 1)
    HALF_NORMAL   shift + scale |N(0, 1)|
    LOGNORMAL     shift + exp(scale + extra N(0, 1))
    GAMMA         shift + scale Gamma(extra)
    SPIKES        shift, or with probability scale: extra
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from paceline.errors import UsageError
from paceline.nearest import did_you_mean

CONSTANT, EXPONENTIAL, UNIFORM, HALF_NORMAL, LOGNORMAL, GAMMA, SPIKES = range(7)

Row: TypeAlias = tuple[int, float, float, float]
"""One worker's law: kind, shift, scale, extra."""


@dataclass(frozen=True, slots=True)
class Laws:
    """The laws of n workers.

    Attributes:
        kinds: shape (n,), int64.
        parameters: shift, scale and extra, shape (n, 3).
        means_s: seconds, shape (n,).
    """

    kinds: npt.NDArray[np.int64]
    parameters: npt.NDArray[np.float64]
    means_s: npt.NDArray[np.float64]

    @property
    def workers(self) -> int:
        """Count the workers."""
        return len(self.kinds)

    @property
    def infima_s(self) -> npt.NDArray[np.float64]:
        """Give the largest number that no time of a worker is below, shape (n,)."""
        shift, extra = self.parameters[:, 0], self.parameters[:, 2]
        return np.where(self.kinds == SPIKES, np.minimum(shift, extra), shift)


@dataclass(frozen=True, slots=True)
class _Kind:
    """A family of shapes: what its parameters are called, which values they may have, and its row for a mean."""

    parameters: tuple[str, ...]
    allowed: Callable[..., bool]
    expected: str
    row: Callable[..., Row]


def _spikes(mean_s: float, probability: float, factor: float) -> Row:
    base_s = mean_s / (1.0 + probability * (factor - 1.0))
    return SPIKES, base_s, probability, factor * base_s


def _has_spikes(probability: float, factor: float) -> bool:
    return 0.0 <= probability <= 1.0 and factor >= 0.0 and 1.0 + probability * (factor - 1.0) > 0.0


_KINDS: dict[str, _Kind] = {
    "const": _Kind((), lambda: True, "", lambda m: (CONSTANT, m, 0.0, 0.0)),
    "exp": _Kind((), lambda: True, "", lambda m: (EXPONENTIAL, 0.0, m, 0.0)),
    # c + Exp(c) with c = mean / 2: the law of the ATA paper's main experiments.
    "shifted-exp": _Kind((), lambda: True, "", lambda m: (EXPONENTIAL, m / 2.0, m / 2.0, 0.0)),
    "uniform": _Kind(
        ("REL",),
        lambda rel: 0.0 <= rel <= 1.0,
        "REL from 0 to 1, for times from mean (1 - REL) to mean (1 + REL)",
        lambda m, rel: (UNIFORM, m * (1.0 - rel), 2.0 * m * rel, 0.0),
    ),
    # Beyond 30 the mean is finite but no number of draws that one could wait for shows it.
    "lognormal": _Kind(
        ("SIGMA",),
        lambda sigma: 0.0 <= sigma <= 30.0,
        "SIGMA, the deviation of the logarithm, from 0 to 30",
        lambda m, sigma: (LOGNORMAL, 0.0, math.log(m) - sigma * sigma / 2.0, sigma),
    ),
    "gamma": _Kind(
        ("SHAPE",),
        lambda shape: 0.01 <= shape <= 1e12,
        "SHAPE from 0.01 to 1e12",
        lambda m, shape: (GAMMA, 0.0, m / shape, shape),
    ),
    "spikes": _Kind(
        ("P", "FACTOR"),
        _has_spikes,
        "a probability P from 0 to 1 and a FACTOR of at least 0, not P = 1 with FACTOR = 0",
        _spikes,
    ),
}


@dataclass(frozen=True, slots=True)
class Shape:
    """A law up to its mean, written ``kind[:parameter...]``; str() gives it back.

    Raises:
        UsageError: an unknown kind, a wrong number of parameters, or parameters for which there is no mean.
    """

    kind: str
    parameters: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        known = _KINDS.get(self.kind)
        if known is None:
            hint = did_you_mean(self.kind, _KINDS)
            raise UsageError(f"law is {self.kind!r}: expected one of {', '.join(map(_usage, _KINDS))}{hint}")
        if len(self.parameters) != len(known.parameters):
            raise UsageError(f"law {self} has {len(self.parameters)} parameters: expected {_usage(self.kind)}")
        if not all(map(math.isfinite, self.parameters)) or not known.allowed(*self.parameters):
            raise UsageError(f"law {self} is out of range or has no mean: expected {known.expected}")

    def row(self, mean_s: float) -> Row:
        """Scale to a mean in seconds, > 0."""
        return _KINDS[self.kind].row(mean_s, *self.parameters)

    def __str__(self) -> str:
        return ":".join([self.kind, *(f"{value:g}" for value in self.parameters)])


def parse_shape(text: str) -> Shape:
    """Read a shape, e.g. ``uniform:0.5``.

    Raises:
        UsageError: see Shape; or a parameter is not a number.
    """
    kind, *words = text.strip().split(":")
    numbers = []
    for word in words if kind in _KINDS else []:
        try:
            numbers.append(float(word))
        except ValueError:
            raise UsageError(f"law {text.strip()!r} has {word!r} for a number: expected {_usage(kind)}") from None
    return Shape(kind, tuple(numbers))


def scaled(shape: Shape, means_s: Sequence[float]) -> Laws:
    """Give every worker the same shape at its own mean.

    Raises:
        UsageError: see `laws_of`.
    """
    check_means(means_s)
    return laws_of([shape.row(mean_s) for mean_s in means_s], means_s)


def five_distributions(means_s: Sequence[float]) -> Laws:
    """Give the workers in turn five laws: exponential, uniform, half-normal, lognormal, gamma; each plus a constant.

    Of a worker's mean one half, m, is the constant, the other the mean of the law.

    Raises:
        UsageError: see `laws_of`; or a mean of at most 2 s for a lognormal, whose log-deviation is sqrt(ln m).
    Source: Maranjyan et al. (2025), section 6, five distributions.
    """
    check_means(means_s)
    return laws_of([_FIVE[i % 5](i + 1, mean_s / 2.0) for i, mean_s in enumerate(means_s)], means_s)


def _lognormal_of_five(worker: int, m: float) -> Row:
    if m <= 1.0:
        raise UsageError(f"mean of worker {worker} is {2 * m:g}: expected more than 2 for this preset's lognormal law")
    return LOGNORMAL, m, math.log(m) / 2.0, math.sqrt(math.log(m))


_FIVE: tuple[Callable[[int, float], Row], ...] = (
    lambda _, m: (EXPONENTIAL, m, m, 0.0),
    lambda _, m: (UNIFORM, 1.5 * m, m, 0.0),
    lambda _, m: (HALF_NORMAL, m, m * math.sqrt(math.pi / 2.0), 0.0),
    _lognormal_of_five,
    lambda _, m: (GAMMA, m, 1.0 / m, m * m),
)


def laws_of(rows: Sequence[Row], means_s: Sequence[float]) -> Laws:
    """Gather workers' rows; `means_s` are their means."""
    return Laws(
        kinds=np.array([row[0] for row in rows], dtype=np.int64),
        parameters=np.array([row[1:] for row in rows], dtype=np.float64),
        means_s=np.array(means_s, dtype=np.float64),
    )


def check_means(means_s: Sequence[float]) -> None:
    """Refuse means that no worker can have.

    Raises:
        UsageError: there is none, or one is not a finite number above 0.
    """
    if not len(means_s):
        raise UsageError("means are none: expected seconds per task of each worker")
    for worker, mean_s in enumerate(means_s, start=1):
        if not 0.0 < mean_s < math.inf:
            raise UsageError(f"mean of worker {worker} is {mean_s:g}: expected finite seconds per task above 0")


def _usage(kind: str) -> str:
    return ":".join([kind, *_KINDS[kind].parameters])
