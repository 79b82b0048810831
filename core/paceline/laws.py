"""Delays and paces that make a worker slower on purpose, for experiments: their laws and how they are written.

A worker of pace p takes p times its own compute time per task; a delay adds seconds drawn from a law.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from paceline.errors import UsageError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Kind:
    """A family of laws: its parameters' names, its mean and its draw as functions of them."""

    parameters: tuple[str, ...]
    mean_s: Callable[..., float]
    draw_s: Callable[..., float]
    may_be_negative: frozenset[str] = frozenset()


_KINDS: dict[str, _Kind] = {
    "const": _Kind(("seconds",), lambda c: c, lambda rng, c: c),
    "exp": _Kind(("mean",), lambda c: c, lambda rng, c: rng.exponential(c)),
    # c + Exp(c): the law of the ATA paper's experiments.
    "shifted-exp": _Kind(("c",), lambda c: 2.0 * c, lambda rng, c: c + rng.exponential(c)),
    "uniform": _Kind(("a", "b"), lambda a, b: (a + b) / 2.0, lambda rng, a, b: rng.uniform(a, b)),
    "lognormal": _Kind(
        ("log_mean", "log_sd"),
        lambda m, s: float(np.exp(m + s * s / 2.0)),
        lambda rng, m, s: rng.lognormal(m, s),
        may_be_negative=frozenset({"log_mean"}),
    ),
}


@dataclass(frozen=True, slots=True)
class Law:
    """A law of non-negative seconds, written ``kind:parameter[:parameter]``; str() gives it back.

    Args:
        kind: const, exp, shifted-exp, uniform or lognormal.
        parameters: seconds, in the order of the text; lognormal's are mean and deviation of the logarithm.

    Raises:
        UsageError: an unknown kind, a wrong number of parameters, or parameters out of range.
    """

    kind: str
    parameters: tuple[float, ...]

    def __post_init__(self) -> None:
        known = _KINDS.get(self.kind)
        if known is None:
            raise UsageError(f"delay law {self.kind!r} is unknown: expected one of {', '.join(map(_usage, _KINDS))}")
        if len(self.parameters) != len(known.parameters):
            raise UsageError(f"delay law {self} has {len(self.parameters)} parameters: expected {_usage(self.kind)}")
        for name, value in zip(known.parameters, self.parameters, strict=True):
            if not math.isfinite(value) or (value < 0 and name not in known.may_be_negative):
                raise UsageError(f"delay law {self} has {name} {value:g}: expected a finite number, not negative")
        if self.kind == "uniform" and self.parameters[0] > self.parameters[1]:
            raise UsageError(f"delay law {self} has a > b: expected uniform:a:b with a <= b")
        if not math.isfinite(self.mean_s):
            raise UsageError(f"delay law {self} has a mean that is not finite")

    @property
    def mean_s(self) -> float:
        """Expected seconds."""
        with np.errstate(over="ignore"):
            return float(_KINDS[self.kind].mean_s(*self.parameters))

    def draw(self, rng: np.random.Generator) -> float:
        """Draw seconds."""
        return float(_KINDS[self.kind].draw_s(rng, *self.parameters))

    def __str__(self) -> str:
        return ":".join([self.kind, *(f"{value!r}" for value in self.parameters)])


def parse_law(text: str) -> Law:
    """Read one law, e.g. ``exp:0.01`` (seconds).

    Raises:
        UsageError: see Law; or a parameter is not a number.
    """
    kind, *words = text.strip().split(":")
    if kind not in _KINDS:
        return Law(kind, ())
    return Law(kind, tuple(_number(word, f"delay law {text.strip()!r}", _usage(kind)) for word in words))


def parse_laws(text: str) -> tuple[Law, ...]:
    """Read laws separated by commas."""
    return tuple(parse_law(part) for part in text.split(","))


def parse_paces(text: str) -> tuple[float, ...]:
    """Read paces separated by commas, e.g. ``1,2,4,8``.

    Raises:
        UsageError: one is not a finite number of at least 1.
    """
    paces = tuple(_number(part, f"pace {text!r}", "numbers of at least 1, like 1,2,4,8") for part in text.split(","))
    for pace in paces:
        if not math.isfinite(pace) or pace < 1:
            raise UsageError(f"pace {pace:g} is out of range: expected at least 1, its own compute time")
    return paces


def per_worker(values: Sequence[T], n_workers: int, option: str) -> tuple[T, ...]:
    """Give each worker its value: one per worker, or one for all.

    Args:
        option: the flag's name, for the message.

    Raises:
        UsageError: another number of values.
    """
    if len(values) == 1:
        return tuple(values) * n_workers
    if len(values) != n_workers:
        raise UsageError(
            f"{option} has {len(values)} values for {n_workers} workers: expected one for each, or one for all"
        )
    return tuple(values)


def _usage(kind: str) -> str:
    return ":".join([kind, *_KINDS[kind].parameters])


def _number(word: str, where: str, expected: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise UsageError(f"{where} has {word.strip()!r} for a number: expected {expected}") from None
