"""What is kept between the lives of a server, as plain data, and back.

A state may come from a file, so nothing in it is believed: `Saved` and `generator_from` build what they are asked for
or raise, and whoever is restored changes itself only when all parts of a state have been built.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

import numpy as np

from paceline.coordination.plan import Json
from paceline.errors import UsageError

# A float that JSON has no number for is kept by its name.
_NAMED = {name: float(name) for name in ("nan", "inf", "-inf")}


class Saved:
    """A value somewhere in a state that is being read.

    Args:
        whole: names what is being read, in errors.
        value: what stands there.
        at: the keys that lead there; empty: the state itself.
    """

    def __init__(self, whole: str, value: Json, at: str = "") -> None:
        self._whole = whole
        self._value = value
        self._at = at

    def fields(self, *keys: str) -> list[Saved]:
        """Give the values of a dict that has just these keys, in their order.

        Raises:
            UsageError: it is no dict, lacks a key or has another.
        """
        value, expected = self._value, f"a dict of {', '.join(keys)}" if keys else "an empty dict"
        if not isinstance(value, Mapping):
            raise self.error(expected)
        for key in (*keys, *value):
            if key not in value or key not in keys:
                what = "is missing" if key not in value else "is unknown"
                raise UsageError(f"{self._whole}: {self._below(key)} {what}: expected {expected}")
        return [self._child(key, value[key]) for key in keys]

    def items(self) -> list[tuple[str, Saved]]:
        """Give all of a dict, whatever its keys; UsageError if it is none."""
        if not isinstance(self._value, Mapping) or not all(isinstance(key, str) for key in self._value):
            raise self.error("a dict")
        return [(key, self._child(key, value)) for key, value in self._value.items()]

    def row(self, least: int, most: int | None = None) -> list[Saved]:
        """Give the values of a list of `least` to `most`, or of any more; UsageError if it is none."""
        value, sizes = self._value, f"{least}" if most == least else f"{least} to {most or 'any number of'}"
        if (
            isinstance(value, str)
            or not isinstance(value, Sequence)
            or not (least <= len(value) and (most is None or len(value) <= most))
        ):
            raise self.error(f"a list of {sizes} values")
        return [self._child(str(place), one) for place, one in enumerate(value)]

    def text(self) -> str:
        """Give a text; UsageError if it is none."""
        if not isinstance(self._value, str):
            raise self.error("a text")
        return self._value

    def flag(self) -> bool:
        """Give a bool; UsageError if it is none."""
        if not isinstance(self._value, bool):
            raise self.error("true or false")
        return self._value

    def count(self, least: int, most: int | None = None) -> int:
        """Give a whole number of `least` to `most`; UsageError if it is none."""
        value = self._value
        if (
            isinstance(value, bool)
            or not isinstance(value, int)
            or not (least <= value and (most is None or value <= most))
        ):
            raise self.error(f"a whole number of at least {least}" if most is None else f"one of {least} to {most}")
        return value

    def number(self) -> float:
        """Give what `number` made of a float; UsageError if it is none."""
        value = self._value
        if isinstance(value, str) and value in _NAMED:
            return _NAMED[value]
        if isinstance(value, float) and math.isfinite(value):
            return value
        raise self.error("a number with a point, or nan, inf or -inf by name")

    def at_least_0(self) -> float:
        """Give a number that is not below 0; UsageError if it is none."""
        found = self.number()
        if not found >= 0:
            raise self.error("a number of at least 0")
        return found

    def seconds(self) -> float:
        """Give finite seconds; UsageError if it is none."""
        if not math.isfinite(found := self.at_least_0()):
            raise self.error("a finite number of seconds")
        return found

    @property
    def none(self) -> bool:
        """Tell whether there is nothing."""
        return self._value is None

    @property
    def value(self) -> Json:
        """What stands here, as it came."""
        return self._value

    def error(self, expected: str) -> UsageError:
        """Make the error that says what was expected here."""
        shown = repr(self._value)
        shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
        where = f"{self._at} " if self._at else ""
        return UsageError(f"{self._whole}: {where}is {shown}: expected {expected}")

    def _below(self, key: object) -> str:
        return f"{self._at}.{key}" if self._at else str(key)

    def _child(self, key: str, value: Json) -> Saved:
        return Saved(self._whole, value, self._below(key))


def number(value: float) -> Json:
    """Give a float as JSON can hold it: itself, or the name of one that is no finite number."""
    return float(value) if math.isfinite(value) else str(float(value))


def generator_state(rng: np.random.Generator) -> Json:
    """Give a generator's state as plain data; its numbers may have 128 bits."""
    return _plain(rng.bit_generator.state)


def generator_from(saved: Saved, like: np.random.Generator) -> np.random.Generator:
    """Make a generator that goes on where a saved one stood.

    Args:
        like: its kind of bit generator is expected.

    Raises:
        UsageError: another bit generator's state, or none that it could have.
    """
    kind = type(like.bit_generator)
    expected = f"a state of the bit generator {kind.__name__}"
    value = saved.value
    if not isinstance(value, Mapping) or value.get("bit_generator") != kind.__name__:
        raise saved.error(expected)
    fresh = kind(0)
    try:
        fresh.state = dict(value)
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise saved.error(expected) from error
    # numpy overlooks what it does not know, takes true for 1, and rounds what is no whole number.
    if json.dumps(_plain(fresh.state), sort_keys=True) != json.dumps(value, sort_keys=True):
        raise saved.error(expected)
    return np.random.Generator(fresh)


def _plain(value: object) -> Json:
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        found: Json = value.tolist()
        return found
    if isinstance(value, str | int):
        return value
    raise TypeError(f"a bit generator's state has {value!r}: expected names, whole numbers and arrays of them")
