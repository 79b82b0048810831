"""Who gets how many tasks, compiled: the decisions of `paceline.allocation`, unit for unit and draw for draw.

A round's decision is sparse: `who[:m]` are the workers with tasks and `counts[:m]` how many; both have room for
min(n, B).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from paceline.allocation.uniform import FEW
from paceline.simulation.compiled.jit import compiled

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Choice(NamedTuple):
    """A decision, and what making it needs; kept from round to round.

    Attributes:
        who, counts: the decision, shape (min(n, B),).
        keys, heap: of candidates, shape (n,): the key of each one's next task, and a heap of them.
        given: tasks of each candidate, shape (n,).
        candidates, order: workers, shape (n,); `order` is 0, 1, ... between calls.
        level: shape (2,): the largest key of the last decision by score, and how far to look beyond (see by_score).
    """

    who: Ints
    counts: Ints
    keys: Floats
    heap: Ints
    given: Ints
    candidates: Ints
    order: Ints
    level: Floats


def new_choice(workers: int, tasks: int) -> Choice:
    """Make room for decisions."""
    active = min(workers, tasks)
    return Choice(
        who=np.zeros(active, dtype=np.int64),
        counts=np.zeros(active, dtype=np.int64),
        keys=np.zeros(workers),
        heap=np.zeros(workers, dtype=np.int64),
        given=np.zeros(workers, dtype=np.int64),
        candidates=np.zeros(workers, dtype=np.int64),
        order=np.arange(workers, dtype=np.int64),
        level=np.array([0.0, 0.1]),
    )


@compiled
def ata_scores(counted: Floats, means_s: Floats, log_term: float, factor: float, scores: Floats) -> int:
    """Score by ATA, with the bits of `allocation.ata_scores`; give the number of zeros.

    Args:
        counted: max(K, 1), shape (n,).
        factor: constant times alpha.
        scores: written, shape (n,).
    """
    zeros = 0
    for i in range(len(scores)):
        r = log_term / counted[i]
        score = means_s[i] - factor * (math.sqrt(r) + r)
        score = score if score > 0.0 else 0.0
        zeros += score == 0.0
        scores[i] = score
    return zeros


@compiled
def ata_empirical_scores(counted: Floats, means_s: Floats, log_term: float, factor: float, scores: Floats) -> int:
    """Score by ATA-Empirical, with the bits of `allocation.ata_empirical_scores`; see `ata_scores`."""
    zeros = 0
    for i in range(len(scores)):
        r = log_term / counted[i]
        share = 1.0 - factor * (math.sqrt(r) + r)
        score = means_s[i] * (share if share > 0.0 else 0.0)
        zeros += score == 0.0
        scores[i] = score
    return zeros


@compiled
def spread(members: Ints, n_members: int, tasks: int, choice: Choice, rng: np.random.Generator) -> int:
    """Spread tasks evenly, the remainder over random members, as `allocation.spread` does; give how many have tasks.

    Args:
        members: the first `n_members` of them, ascending.
    """
    share, remainder = tasks // n_members, tasks % n_members
    m = 0
    if share:
        for j in range(n_members):
            choice.who[j] = members[j]
            choice.counts[j] = share
        m = n_members
    if remainder > FEW:
        return _add_to_many(members, n_members, remainder, choice, rng, m)
    order, swaps = choice.order, choice.heap
    for place in range(remainder):
        other = place + int(rng.random() * (n_members - place))
        order[place], order[other] = order[other], order[place]
        swaps[place] = other
        m = _add_one(members, order[place], share, choice, m)
    for place in range(remainder - 1, -1, -1):
        other = swaps[place]
        order[place], order[other] = order[other], order[place]
    return m


@compiled
def _add_to_many(
    members: Ints, n_members: int, remainder: int, choice: Choice, rng: np.random.Generator, m: int
) -> int:
    """Add one task each to the members of the smallest draws, ties to the first."""
    share, keys, heap = m, choice.keys, choice.heap
    for j in range(n_members):
        keys[j] = rng.random()
        heap[j] = j
    for place in range(n_members // 2 - 1, -1, -1):
        sift_down(keys, heap, place, n_members)
    for taken in range(remainder):
        m = _add_one(members, heap[0], share, choice, m)
        heap[0] = heap[n_members - 1 - taken]
        sift_down(keys, heap, 0, n_members - 1 - taken)
    return m


@compiled
def _add_one(members: Ints, j: int, share: int, choice: Choice, m: int) -> int:
    """Give one task to the j-th member, who has a place in the decision already if all have a share."""
    if share:
        choice.counts[j] += 1
        return m
    choice.who[m] = members[j]
    choice.counts[m] = 1
    return m + 1


@compiled
def by_score(scores: Floats, tasks: int, choice: Choice) -> int:
    """Give each task to the smallest (a_i + 1) s_i, ties to the lowest index; give how many workers have tasks.

    Scores mostly move little from one round to the next, and so does the largest key that gets a task, the level. So
    keys a little below the last level are given at once, and only workers with a key up to a little above it are
    looked at. If the first gives too many, or a task goes beyond the second, the margin was too small: it is tried
    once more with a larger one, and then with all workers that may get a task at all (the fastest one's B-th key is a
    sure bound). The margin follows: a learning policy holds the scores of most workers just above its level.

    Args:
        scores: > 0, shape (n,).
    """
    level, margin = choice.level[0], choice.level[1]
    bound, largest, n_candidates = 0.0, np.inf, 0
    for _ in range(2):
        bound = level * (1.0 + margin)
        n_candidates = _candidates(scores, bound, choice)
        largest = _give(scores, tasks, choice, n_candidates, level * (1.0 - margin)) if n_candidates else np.inf
        if largest <= bound:
            break
        margin = min(8.0 * margin, 1.0)
    if largest > bound:
        n_candidates = _candidates(scores, tasks * scores.min(), choice)
        largest = _give(scores, tasks, choice, n_candidates, 0.0)
    choice.level[0], choice.level[1] = largest, max(0.95 * margin, 1e-9)
    m = 0
    for c in range(n_candidates):
        if choice.given[c]:
            choice.who[m] = choice.candidates[c]
            choice.counts[m] = choice.given[c]
            m += 1
    return m


@compiled
def _candidates(scores: Floats, bound: float, choice: Choice) -> int:
    """Note the workers whose first key is within a bound, and count them."""
    found = 0
    for i in range(len(scores)):
        if scores[i] <= bound:
            choice.candidates[found] = i
            found += 1
    return found


@compiled
def _give(scores: Floats, tasks: int, choice: Choice, n_candidates: int, sure: float) -> float:
    """Hand the tasks to the candidates and give the largest key that got one; inf where `sure` was too large.

    Args:
        sure: all keys up to here are given first, without sorting them.
    """
    keys, heap, given = choice.keys, choice.heap, choice.given
    left = tasks
    largest = 0.0
    for c in range(n_candidates):
        score = scores[choice.candidates[c]]
        quotient = sure / score
        if quotient > left + 1:
            return np.inf
        count = int(quotient)
        # The quotient may be off by one; what counts is the product.
        while count * score > sure:
            count -= 1
        while (count + 1) * score <= sure:
            count += 1
        given[c] = count
        left -= count
        largest = max(largest, count * score)
        keys[c] = (count + 1) * score
        heap[c] = c
        if left < 0:
            return np.inf
    for place in range(n_candidates // 2 - 1, -1, -1):
        sift_down(keys, heap, place, n_candidates)
    for _ in range(left):
        c = heap[0]
        largest = keys[c]
        given[c] += 1
        keys[c] = (given[c] + 1) * scores[choice.candidates[c]]
        sift_down(keys, heap, 0, n_candidates)
    return largest


@compiled
def sift_down(keys: Floats, heap: Ints, place: int, size: int) -> None:
    """Restore a min-heap of indices below a place, by key and then by index."""
    moving = heap[place]
    key = keys[moving]
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        lower = heap[child]
        if child + 1 < size:
            right = heap[child + 1]
            if keys[right] < keys[lower] or (keys[right] == keys[lower] and right < lower):
                child += 1
                lower = right
        if keys[lower] > key or (keys[lower] == key and lower > moving):
            break
        heap[place] = lower
        place = child
    heap[place] = moving
