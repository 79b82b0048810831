"""Rounds of each family of policies, compiled: decide, let the workers do it, add up.

A kernel does one block of rounds: state arrays in, sums out. What depends on the round's number (the log term) comes
in as an array that numpy made, so that decisions have the bits of the coordinator's.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from paceline.simulation.compiled.choices import (
    Choice,
    Floats,
    Ints,
    ata_empirical_scores,
    ata_scores,
    by_score,
    sift_down,
    spread,
)
from paceline.simulation.compiled.jit import compiled
from paceline.simulation.compiled.streams import STEP, task_s

TIME, WORK, REGRET, BAD = range(4)
"""Places in the sums: run time, worker seconds, proxy regret, rounds of more than the least proxy loss."""


class Workers(NamedTuple):
    """The workers' laws, streams and statistics; arrays of shape (n,).

    Attributes:
        kinds, parameters, infima_s, true_means_s: see `shapes.Laws`.
        streams: see `streams`.
        counted: max(K, 1), K being the tasks done.
        done: K.
        busy_s, means_s: T and T / K, 0 where K is.
    """

    kinds: Ints
    parameters: Floats
    infima_s: Floats
    true_means_s: Floats
    streams: np.ndarray[tuple[int], np.dtype[np.uint64]]
    counted: Floats
    done: Ints
    busy_s: Floats
    means_s: Floats


@compiled
def _work_off(workers: Workers, choice: Choice, m: int, best_s: float, sums: Floats) -> None:
    """Let the workers do a decision's tasks; all results are awaited."""
    longest_s, work_s, proxy_s = 0.0, 0.0, 0.0
    for j in range(m):
        i, count = choice.who[j], choice.counts[j]
        sum_s = 0.0
        # Task by task, as the coordinator adds: another order gives other bits.
        busy_s = workers.busy_s[i]
        for _ in range(count):
            seconds = task_s(workers.kinds, workers.parameters, workers.streams, i)
            sum_s += seconds
            busy_s += seconds
        workers.busy_s[i] = busy_s
        workers.done[i] += count
        workers.counted[i] = workers.done[i]
        workers.means_s[i] = busy_s / workers.counted[i]
        work_s += sum_s
        longest_s = max(longest_s, sum_s)
        proxy_s = max(proxy_s, count * workers.true_means_s[i])
    sums[TIME] += longest_s
    sums[WORK] += work_s
    sums[REGRET] += proxy_s - best_s
    sums[BAD] += proxy_s > best_s


@compiled
def play_by_score(
    workers: Workers,
    choice: Choice,
    rng: np.random.Generator,
    log_terms: Floats,
    tasks: int,
    empirical: bool,
    factor: float,
    best_s: float,
    sums: Floats,
) -> int:
    """Play a block of ATA or ATA-Empirical.

    Args:
        log_terms: one per round of the block.
        factor: constant times alpha (ATA), or the constant (ATA-Empirical).
        best_s: least proxy loss.
        sums: added to, shape (4,).

    Returns:
        how many workers had tasks in the last round: `choice` still has its decision.
    Source: Maranjyan et al. (2025), Alg. 1 and section 6.
    """
    n = len(workers.done)
    scores = np.empty(n)
    m = 0
    for log_term in log_terms:
        if empirical:
            zeros = ata_empirical_scores(workers.counted, workers.means_s, log_term, factor, scores)
        else:
            zeros = ata_scores(workers.counted, workers.means_s, log_term, factor, scores)
        if zeros:
            members = 0
            for i in range(n):
                choice.candidates[members] = i
                members += scores[i] == 0.0
            m = spread(choice.candidates, zeros, tasks, choice, rng)
        else:
            m = by_score(scores, tasks, choice)
        _work_off(workers, choice, m, best_s, sums)
    return m


@compiled
def play_uniform(
    workers: Workers, choice: Choice, rng: np.random.Generator, rounds: int, tasks: int, best_s: float, sums: Floats
) -> int:
    """Play a block of the uniform policy; see `play_by_score`."""
    n = len(workers.done)
    for i in range(n):
        choice.candidates[i] = i
    m = 0
    for _ in range(rounds):
        m = spread(choice.candidates, n, tasks, choice, rng)
        _work_off(workers, choice, m, best_s, sums)
    return m


@compiled
def play_fixed(workers: Workers, choice: Choice, m: int, rounds: int, best_s: float, sums: Floats) -> int:
    """Play a block of the decision that stands in `choice` already; see `play_by_score`."""
    for _ in range(rounds):
        _work_off(workers, choice, m, best_s, sums)
    return m


@compiled
def play_greedy(workers: Workers, choice: Choice, rounds: int, tasks: int, sums: Floats) -> int:
    """Play a block of the greedy policy: all start afresh in every round, and everybody is paid until its end.

    First tasks that would surely end after the round do not take part: those beyond a bound somewhat above the last
    round's time. Where the infimum of a worker's law is, its stream is moved on without a draw. If the round does not
    end within the bound after all, it is played again without one.

    Returns:
        as `play_by_score`: how many workers had results that were used.
    """
    n = len(workers.done)
    given = choice.given
    before = np.empty_like(workers.streams)
    round_s = np.inf
    for _ in range(rounds):
        before[:] = workers.streams
        bound_s = 1.5 * round_s
        round_s = _greedy_round(workers, choice, tasks, bound_s)
        if round_s > bound_s:
            workers.streams[:] = before
            round_s = _greedy_round(workers, choice, tasks, np.inf)
        for i in range(n):
            workers.done[i] += given[i]
        sums[TIME] += round_s
        sums[WORK] += n * round_s
    m = 0
    for i in range(n):
        if given[i]:
            choice.who[m] = i
            choice.counts[m] = given[i]
            m += 1
    return m


@compiled
def _greedy_round(workers: Workers, choice: Choice, tasks: int, bound_s: float) -> float:
    """Give the time of the B-th result; inf where fewer come within the bound.

    `choice.given` has each worker's results.
    """
    finish_s, heap, given = choice.keys, choice.heap, choice.given
    size = 0
    for i in range(len(given)):
        given[i] = 0
        if workers.infima_s[i] > bound_s:
            workers.streams[i] += STEP
            continue
        finish_s[i] = task_s(workers.kinds, workers.parameters, workers.streams, i)
        if finish_s[i] <= bound_s:
            heap[size] = i
            size += 1
    for place in range(size // 2 - 1, -1, -1):
        sift_down(finish_s, heap, place, size)
    for result in range(tasks):
        if not size:
            return np.inf
        i = heap[0]
        now_s = float(finish_s[i])
        given[i] += 1
        if result == tasks - 1:
            return now_s
        finish_s[i] = now_s + task_s(workers.kinds, workers.parameters, workers.streams, i)
        if finish_s[i] > bound_s:
            size -= 1
            heap[0] = heap[size]
        sift_down(finish_s, heap, 0, size)
    return np.inf
