"""Compiled rounds of policies that employ r of n workers, and of the synchronous K-sync family.

Employing rules decide as coordination.policies.cmab does, on the same random numbers:

    cmab-kl, cmab-kl-theorem    KL index with f = ln j, or ln j + 3 ln ln j
    cmab-lcb                    LCB index with the true largest mean as its bound
    cmab-oracle                 the workers of smallest true mean
    greedy-mean                 the learned mean is the index: no exploration beyond one task each
    random                      r workers at random

The K-sync family has the same growing number, of results now, and everybody at work (model A: who is late is cancelled
at the update and starts anew): `k-sync` waits for k different workers, `k-batch-sync` for k results of anybody.

Task times are keyed by worker and round where a worker has at most one task a round: every policy that employs worker i
in round j sees the same time (common random numbers).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from paceline.allocation import Quadrature, exploration_term
from paceline.coordination.policies.schedule import GrowingCount
from paceline.simulation.compiled.jit import compiled
from paceline.simulation.compiled.streams import STEP, policy_generator, starting_streams, task_s
from paceline.simulation.shapes import Laws

_KL, _LCB, _FIXED, _MEAN, _RANDOM = range(5)
_RULES = {
    "cmab-oracle": _FIXED,
    "cmab-kl": _KL,
    "cmab-kl-theorem": _KL,
    "greedy-mean": _MEAN,
    "cmab-lcb": _LCB,
    "random": _RANDOM,
}
EMPLOYING = tuple(_RULES)
"""Policies that employ r workers and use all r results."""

K_FAMILY = ("k-sync", "k-batch-sync")
"""Policies that keep everybody at work and use k results."""


class Learned(NamedTuple):
    """A run's state: tasks and their seconds per worker, shape (n,), and the workers' streams; moved on in place.

    For the K-sync family `tasks_done` counts the results used, and `busy_s` stays 0: it learns nothing.
    """

    tasks_done: npt.NDArray[np.int64]
    busy_s: npt.NDArray[np.float64]
    streams: npt.NDArray[np.uint64]


class Block(NamedTuple):
    """What happened in some consecutive rounds.

    Attributes:
        counts: workers employed and used, or results awaited, shape (m,).
        round_s, work_s: run time and worker seconds of each round, shape (m,).
        employed: their numbers in ascending order, then -1, shape (m, largest count); (0, 0) for the K-sync family.
        times_s: of their tasks, in the same places; 0 else.
    """

    counts: npt.NDArray[np.int64]
    round_s: npt.NDArray[np.float64]
    work_s: npt.NDArray[np.float64]
    employed: npt.NDArray[np.int64]
    times_s: npt.NDArray[np.float64]


class EmployedRun:
    """A run of one policy, a block of rounds at a time.

    Args:
        policy: one of EMPLOYING or K_FAMILY.
        laws: of the workers' task times.
        schedule: how many workers are employed, or results awaited, in each round.
        seed: of the workers' streams and of the policy's generator.
    """

    def __init__(self, policy: str, laws: Laws, schedule: GrowingCount, seed: int) -> None:
        n = laws.workers
        self.learned = Learned(np.zeros(n, np.int64), np.zeros(n), starting_streams(n, seed))
        self.rounds = 0
        self._policy = policy
        self._laws = laws
        self._schedule = schedule
        self._rng = policy_generator(seed)

    def advance(self, rounds: int) -> Block:
        """Simulate the next rounds."""
        numbers = np.arange(self.rounds + 1, self.rounds + rounds + 1)
        counts = np.array([self._schedule.at(number) for number in numbers.tolist()], dtype=np.int64)
        self.rounds += rounds
        rule = _RULES.get(self._policy)
        width = int(counts.max(initial=0)) if rule is not None else 0
        shape = (rounds if width else 0, width)
        block = Block(counts, np.zeros(rounds), np.zeros(rounds), np.full(shape, -1, np.int64), np.zeros(shape))
        laws, learned = self._laws, self.learned
        if rule is not None:
            terms = self._terms(numbers)
            _employ(rule, terms, laws.means_s, laws.kinds, laws.parameters, learned, self._rng, block)
        elif self._policy == "k-sync":
            _k_sync(laws.kinds, laws.parameters, learned, block)
        else:
            _k_batch_sync(laws.kinds, laws.parameters, learned, block)
        return block

    def _terms(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Give the exploration term of each round; rules that do not explore pay no heed."""
        if self._policy == "cmab-lcb":
            # math.log, as in lcb_indices: numpy's may differ in the last bit.
            return np.array([2.0 * math.log(number) for number in numbers.tolist()])
        return exploration_term(numbers, "theorem" if self._policy == "cmab-kl-theorem" else "practical")

    def employments(self, block: Block) -> npt.NDArray[np.int64]:
        """Count the tasks dispatched in each round of a block, used or not, shape (m,).

        Source: Dutta et al. (2018): n for K-sync, n + K - 1 for K-batch-sync; the K-th result starts no further task.
        """
        if self._policy in _RULES:
            return block.counts
        everybody = np.full(block.counts.size, self._laws.workers, dtype=np.int64)
        return everybody + block.counts - 1 if self._policy == "k-batch-sync" else everybody


def superarm_means_s(
    employed: npt.NDArray[np.int64], counts: npt.NDArray[np.int64], nodes: Quadrature
) -> npt.NDArray[np.float64]:
    """Return the expected maximum of the employed workers' exponential times, for each row, shape (m,).

    Args:
        employed, counts: as in `Block`.
        nodes: of all workers.
    Source: Egger et al. (2025), Proposition 1: the pseudo-regret takes this in place of the sampled maximum.
    """
    result = np.empty(len(counts))
    _superarm_means(employed, counts, nodes.log_cdf, nodes.weights_s, result)
    return result


def optima_s(means_s: npt.NDArray[np.float64], nodes: Quadrature, most: int) -> npt.NDArray[np.float64]:
    """Return the expected maximum of the best r workers at place r, 0 at place 0, shape (most + 1,)."""
    best = np.argsort(means_s, kind="stable")
    employed = np.full((most, most), -1)
    for r in range(1, most + 1):
        employed[r - 1, :r] = np.sort(best[:r])
    return np.append(0.0, superarm_means_s(employed, np.arange(1, most + 1), nodes))


@compiled
def _employ(
    rule: int,
    terms: npt.NDArray[np.float64],
    means_s: npt.NDArray[np.float64],
    kinds: npt.NDArray[np.int64],
    parameters: npt.NDArray[np.float64],
    learned: Learned,
    rng: np.random.Generator,
    block: Block,
) -> None:
    n = means_s.size
    mean_max_s = means_s.max()
    indices = np.empty(n)
    chosen = np.empty(n, np.bool_)
    for k in range(len(block.counts)):
        for i in range(n):
            if rule == _FIXED:
                indices[i] = means_s[i]
            else:
                indices[i] = _index(rule, terms[k], learned.tasks_done[i], learned.busy_s[i], mean_max_s)
        # The oracle's ties fall to the lowest number, as its policy's do; the others' at random.
        _choose(indices, block.counts[k], rule != _FIXED, rng, chosen)
        place, longest_s, work_s = 0, 0.0, 0.0
        for i in range(n):
            if not chosen[i]:
                learned.streams[i] += STEP
                continue
            seconds = task_s(kinds, parameters, learned.streams, i)
            learned.tasks_done[i] += 1
            learned.busy_s[i] += seconds
            block.employed[k, place] = i
            block.times_s[k, place] = seconds
            place += 1
            longest_s = max(longest_s, seconds)
            work_s += seconds
        block.round_s[k] = longest_s
        block.work_s[k] = work_s


@compiled
def _index(rule: int, term: float, tasks: int, busy_s: float, mean_max_s: float) -> float:
    """Rate one worker: allocation.indices, in its order of operations."""
    if rule == _RANDOM:
        return 0.0
    if tasks == 0:
        return -np.inf
    mean_s = busy_s / tasks
    if rule == _MEAN:
        return mean_s
    if rule == _LCB:
        return mean_s - mean_max_s * (math.sqrt(4.0 * term / tasks) + 2.0 * term / tasks)
    excess = term / tasks
    u = 1.0 + math.sqrt(2.0 * excess) + excess
    for _ in range(3):
        u = u * (excess + math.log(u)) / (u - 1.0)
    return mean_s / u


@compiled
def _choose(
    indices: npt.NDArray[np.float64],
    count: int,
    at_random: bool,
    rng: np.random.Generator,
    chosen: npt.NDArray[np.bool_],
) -> None:
    """Mark the `count` smallest: allocation.indices.smallest, draw for draw."""
    last = _ranked(indices, count)
    tied = np.empty(indices.size, np.int64)
    size, places = 0, count
    for i in range(indices.size):
        chosen[i] = indices[i] < last
        places -= chosen[i]
        if indices[i] == last:
            tied[size] = i
            size += 1
    for place in range(places):
        if at_random and places < size:
            other = place + int(rng.random() * (size - place))
            tied[place], tied[other] = tied[other], tied[place]
        chosen[tied[place]] = True


@compiled
def _ranked(values: npt.NDArray[np.float64], rank: int) -> float:
    """Give the `rank`-th smallest value, from 1: Hoare's (1961) selection. numba takes 12 s to compile np.partition."""
    values = values.copy()
    low, high = 0, values.size - 1
    while low < high:
        pivot = values[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if rank - 1 <= j:
            high = j
        elif rank - 1 >= i:
            low = i
        else:
            break
    return float(values[rank - 1])


@compiled
def _k_sync(kinds: npt.NDArray[np.int64], parameters: npt.NDArray[np.float64], learned: Learned, block: Block) -> None:
    n = kinds.size
    times_s = np.empty(n)
    for k in range(len(block.counts)):
        for i in range(n):
            times_s[i] = task_s(kinds, parameters, learned.streams, i)
        count = block.counts[k]
        last_s = _ranked(times_s, count)
        missing, work_s = count, 0.0
        for i in range(n):
            missing -= times_s[i] < last_s
            work_s += min(times_s[i], last_s)
        for i in range(n):
            if times_s[i] < last_s:
                learned.tasks_done[i] += 1
            elif times_s[i] == last_s and missing > 0:
                learned.tasks_done[i] += 1
                missing -= 1
        block.round_s[k] = last_s
        block.work_s[k] = work_s


@compiled
def _k_batch_sync(
    kinds: npt.NDArray[np.int64], parameters: npt.NDArray[np.float64], learned: Learned, block: Block
) -> None:
    n = kinds.size
    ends_s = np.empty(n)
    for k in range(len(block.counts)):
        for i in range(n):
            ends_s[i] = task_s(kinds, parameters, learned.streams, i)
        count = block.counts[k]
        for number in range(count):
            first = int(ends_s.argmin())
            learned.tasks_done[first] += 1
            block.round_s[k] = ends_s[first]
            if number < count - 1:
                ends_s[first] += task_s(kinds, parameters, learned.streams, first)
        block.work_s[k] = n * block.round_s[k]


@compiled
def _superarm_means(
    employed: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
    log_cdf: npt.NDArray[np.float64],
    weights_s: npt.NDArray[np.float64],
    result: npt.NDArray[np.float64],
) -> None:
    total = np.empty(weights_s.size)
    for k in range(counts.size):
        if k > 0 and (employed[k] == employed[k - 1]).all():
            result[k] = result[k - 1]
            continue
        total[:] = 0.0
        for place in range(counts[k]):
            total += log_cdf[employed[k, place]]
        result[k] = -(weights_s * np.expm1(total)).sum()
