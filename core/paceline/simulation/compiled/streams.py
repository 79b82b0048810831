"""Random task times, one stream per worker: the u-th task of a worker takes the same time whatever the policy.

A stream is SplitMix64: a 64-bit counter that grows by a constant, hashed. Its whole state is one uint64, a task takes
exactly one step of it, and a task whose time does not matter is skipped by that step alone. Laws that need more than
one uniform number hash the task's own 64 bits on.

Source: Steele, Lea, Flood (2014), "Fast splittable pseudorandom number generators" (SplitMix64).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from paceline.simulation.compiled.jit import compiled
from paceline.simulation.compiled.normal import normal_quantile
from paceline.simulation.shapes import CONSTANT, EXPONENTIAL, GAMMA, HALF_NORMAL, LOGNORMAL, UNIFORM

STEP = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLY_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLY_2 = np.uint64(0x94D049BB133111EB)
_30, _27, _31, _11, _12 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11), np.uint64(12)
_TO_UNIT = 2.0**-53
_TO_OPEN_UNIT = 2.0**-52


def starting_streams(workers: int, seed: int) -> npt.NDArray[np.uint64]:
    """Give each worker the state of its stream, shape (workers,), whatever the number of the others."""
    return np.random.SeedSequence([seed, 0]).generate_state(workers, np.uint64).astype(np.uint64)


def policy_generator(seed: int) -> np.random.Generator:
    """Give the generator that a policy draws from; it has nothing to do with the workers' streams."""
    return np.random.default_rng([seed, 1])


@compiled
def hashed(state: np.uint64) -> np.uint64:
    """Hash 64 bits."""
    z = (state ^ (state >> _30)) * _MULTIPLY_1
    z = (z ^ (z >> _27)) * _MULTIPLY_2
    return z ^ (z >> _31)


@compiled
def unit(bits: np.uint64) -> float:
    """Make a float of [0, 1) of 64 bits."""
    return np.int64(bits >> _11) * _TO_UNIT


@compiled
def task_s(
    kinds: npt.NDArray[np.int64],
    parameters: npt.NDArray[np.float64],
    streams: npt.NDArray[np.uint64],
    worker: int,
) -> float:
    """Draw the seconds of a worker's next task, by one step of its stream.

    Args:
        kinds, parameters: see `shapes.Laws`.
        streams: shape (n,); the worker's is moved on.
    """
    state = streams[worker] + STEP
    streams[worker] = state
    kind, shift = kinds[worker], float(parameters[worker, 0])
    if kind == EXPONENTIAL:
        return shift - float(parameters[worker, 1]) * math.log(1.0 - unit(hashed(state)))
    if kind == CONSTANT:
        return shift
    return _other_s(kind, shift, parameters[worker, 1], parameters[worker, 2], hashed(state))


@compiled
def _other_s(kind: int, shift: float, scale: float, extra: float, bits: np.uint64) -> float:
    if kind == UNIFORM:
        return shift + scale * unit(bits)
    if kind == HALF_NORMAL:
        return shift + scale * abs(_normal(bits))
    if kind == LOGNORMAL:
        return shift + math.exp(scale + extra * _normal(bits))
    if kind == GAMMA:
        return shift + scale * _gamma(extra, bits)
    return extra if unit(bits) < scale else shift  # SPIKES


@compiled
def _normal(bits: np.uint64) -> float:
    """Draw from N(0, 1); 52 bits and a half keep away from 0 and 1."""
    return normal_quantile((np.int64(bits >> _12) + 0.5) * _TO_OPEN_UNIT)


@compiled
def _gamma(shape: float, bits: np.uint64) -> float:
    """Draw from Gamma(shape, 1): Marsaglia and Tsang (2000); shapes below 1 by their power of a uniform number."""
    boost = 1.0
    if shape < 1.0:
        boost = (1.0 - unit(bits)) ** (1.0 / shape)
        shape += 1.0
    d = shape - 1.0 / 3.0
    c = 1.0 / math.sqrt(9.0 * d)
    while True:
        bits = hashed(bits + STEP)
        x = _normal(bits)
        v = 1.0 + c * x
        if v <= 0.0:
            continue
        v = v * v * v
        # ~bits: not the number that the normal was made of.
        if math.log(1.0 - unit(hashed(~bits))) < 0.5 * x * x + d - d * v + d * math.log(v):
            return d * v * boost
