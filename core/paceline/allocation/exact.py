"""Exact minimiser of max a_i s_i subject to sum a_i = B, at a cost that does not depend on B.

Theory. Worker i's j-th task has the key j s_i. A minimiser takes the B smallest keys of all: for each worker they are
a prefix 1..a_i, so they are feasible, and no allocation of B tasks can do with a smaller largest key. Equal keys go to
the lowest index; a key is the float64 product, so "equal" means equal as floats, and the result is unit for unit that
of the greedy which gives B times one task to the worker with the smallest (a_i + 1) s_i. It has the fewest maximisers
of all minimisers, as the paper asks (lemma C.3).

Two ways to the same result. Few tasks: run the greedy itself with a heap. Many: count the keys <= t, N(t) =
sum floor(t / s_i), at two levels t that enclose the B-th key, and sort out the keys between them.
"""

import heapq
import math

import numpy as np
import numpy.typing as npt

from paceline.allocation.uniform import check_tasks, spread
from paceline.errors import UsageError

_HEAP_MAX_TASKS = 64
"""Measured: up to about here the heap in plain Python (0.3 us a task) beats the 30 us of numpy calls below."""

_SAFE_EXPONENT = 900
"""Beyond 2**+-900 products and reciprocals of scores may leave float64's range: scores are scaled first."""


def allocate(scores: npt.NDArray[np.float64], tasks: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Allocate tasks to workers so that the largest a_i s_i is smallest; ties go to the lowest index.

    If any score is zero the minimum is 0: all tasks are spread evenly over the zero-score workers (see `spread`, the
    only case that draws from `rng`).

    Args:
        scores: seconds per task as the policy believes them, shape (n,), finite, >= 0.
        tasks: B, tasks of the round, 1 to 2**40.
    Returns:
        a, tasks per worker, shape (n,), summing to `tasks`.
    Raises:
        UsageError: no scores, a score that is negative or not finite, or `tasks` out of range.
    Source: Maranjyan et al. (2025), Alg. 1 and RAS (appendix C). Differs: the greedy's choice among the optima RAS
        may return, so the result is deterministic for positive scores.
    Complexity: O(n) for any B; memory for about 10 arrays of min(n, B) numbers.
    """
    check_tasks(tasks)
    scores = np.asarray(scores, dtype=np.float64)
    smallest = _checked_minimum(scores)
    n = scores.size
    if smallest == 0.0:
        return spread(tasks, scores == 0.0, n, rng)
    exponent = math.frexp(smallest)[1]
    if abs(exponent) > _SAFE_EXPONENT:
        # A power of two keeps every key's bits. Scores that overflow here are too large to get a task.
        with np.errstate(over="ignore"):
            scores = np.minimum(np.ldexp(scores, -exponent), np.finfo(np.float64).max)
    allocate_positive = _allocate_by_heap if tasks <= _HEAP_MAX_TASKS else _allocate_by_level
    if n <= tasks:
        return allocate_positive(scores, tasks)
    candidates = _smallest(scores, tasks)
    allocation = np.zeros(n, dtype=np.int64)
    allocation[candidates] = allocate_positive(scores[candidates], tasks)
    return allocation


def _checked_minimum(scores: npt.NDArray[np.float64]) -> float:
    if scores.ndim != 1 or scores.size == 0:
        raise UsageError(f"scores have shape {scores.shape}: expected one score per worker, at least 1 worker")
    smallest, largest = float(scores.min()), float(scores.max())  # both are NaN if any score is
    if not (smallest >= 0.0 and largest < np.inf):
        worker = int(np.flatnonzero(~((scores >= 0.0) & (scores < np.inf)))[0])
        raise UsageError(f"score of worker {worker} is {scores[worker]}: expected a finite number >= 0")
    return smallest


def _smallest(scores: npt.NDArray[np.float64], tasks: int) -> npt.NDArray[np.int64]:
    """Return the workers, ascending, with the `tasks` (< n) smallest scores, ties to the lowest index.

    No other worker can get a task: `tasks` keys (these workers' first ones) come before its first.
    """
    largest = np.partition(scores, tasks - 1)[tasks - 1]
    candidates = np.flatnonzero(scores <= largest)
    excess = candidates.size - tasks
    if excess:
        tied = np.flatnonzero(scores[candidates] == largest)
        candidates = np.delete(candidates, tied[-excess:])
    return candidates


def _allocate_by_heap(scores: npt.NDArray[np.float64], tasks: int) -> npt.NDArray[np.int64]:
    """Give one task after the other to the smallest key; for positive scores and few tasks."""
    seconds: list[float] = scores.tolist()
    allocation = [0] * len(seconds)
    heap = [(key, worker) for worker, key in enumerate(seconds)]
    heapq.heapify(heap)
    for _ in range(tasks):
        worker = heap[0][1]
        allocation[worker] += 1
        heapq.heapreplace(heap, ((allocation[worker] + 1) * seconds[worker], worker))
    return np.array(allocation, dtype=np.int64)


def _allocate_by_level(scores: npt.NDArray[np.float64], tasks: int) -> npt.NDArray[np.int64]:
    """Take all keys up to a level just below the B-th key, and the rest from the next few in order."""
    below, above = _enclose(scores, tasks)
    missing = tasks - int(below.sum())
    if missing == 0:
        return below.astype(np.int64)
    between = (above - below).astype(np.int64)
    # The keys j s_i for j = below_i + 1 .. above_i, worker by worker: ascending by worker, which breaks the ties.
    ends = np.cumsum(between)
    numbers = np.arange(1, int(ends[-1]) + 1) + np.repeat(below - (ends - between), between)
    keys = numbers * np.repeat(scores, between)
    last = np.partition(keys, missing - 1)[missing - 1]
    taken = keys < last
    tied = np.flatnonzero(keys == last)
    taken[tied[: missing - int(np.count_nonzero(taken))]] = True
    counted = np.concatenate(([0], np.cumsum(taken)))
    return below.astype(np.int64) + np.diff(counted[np.concatenate(([0], ends))])


def _enclose(scores: npt.NDArray[np.float64], tasks: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Count each worker's keys up to two levels with N(lower) <= tasks <= N(upper), mostly n/50 keys apart.

    With H = sum(1/s_i): t H - n < N(t) <= t H, whatever the scores. So B/H and (B + n)/H are sure to enclose the B-th
    key, with at most 2 n keys between them. Rounding down loses half a key a worker on average, so (B + n/2)/H is
    near it on one side; the other side is aimed at from there, and falls back to the sure bound (masses of ties).
    Rounding in H and in the keys moves N(t) at the sure bounds by less than 1e-14 (B + n) < 1 for B <= 2**40; N(t) is
    a whole number, so they still hold.
    """
    n = scores.size
    rates = 1.0 / scores
    total_rate = float(rates.sum())
    start = tasks + n / 2
    first = _keys_up_to(start / total_rate, scores, rates)
    surplus = int(first.sum()) - tasks
    direction = 1 if surplus < 0 else -1
    second = _keys_up_to((start - surplus + direction * n / 50) / total_rate, scores, rates)
    if direction * (int(second.sum()) - tasks) < 0:
        second = _keys_up_to((tasks + n if direction > 0 else tasks) / total_rate, scores, rates)
    return (first, second) if direction > 0 else (second, first)


def _keys_up_to(
    level: float, scores: npt.NDArray[np.float64], rates: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Count each worker's keys <= `level`, as floats; exact for counts below 2**50.

    `level * rate` is off by less than 1 from the count of float products, hence one correction either way.
    """
    counts = np.floor(level * rates)
    counts -= counts * scores > level
    counts += (counts + 1.0) * scores <= level
    return counts
