"""Allocation with late joiners (ADR-0001); without any it is `allocate` itself, draw for draw."""

import numpy as np
import numpy.typing as npt

from paceline.allocation.exact import allocate
from paceline.allocation.uniform import check_tasks, spread
from paceline.errors import UsageError


def allocate_with_newcomers(
    scores: npt.NDArray[np.float64], tasks: int, founders: npt.NDArray[np.bool_], rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Allocate so that a late joiner whose score is still zero gets a share, but never the whole round.

    Each newcomer (no founder, score zero) gets ceil(tasks / n), or an even share of all tasks where these do not
    suffice. The rest goes by the paper's rule to all others: evenly to founders with score zero if there are any, else
    by the exact minimiser. If all workers are newcomers they share everything.

    Args:
        scores: seconds per task as the policy believes them, shape (n,), finite, >= 0.
        tasks: tasks of the round, 1 to 2**40.
        founders: mask, shape (n,): workers that were there when round 1 was planned.
    Returns:
        tasks per worker, shape (n,), summing to `tasks`.
    Raises:
        UsageError: as `allocate`, or masks and scores of different shapes.
    Source: ours, not the paper's, which knows a fixed set of workers.
    """
    check_tasks(tasks)
    if founders.shape != scores.shape:
        raise UsageError(f"founders have shape {founders.shape}: expected that of the scores, {scores.shape}")
    newcomers = ~founders & (scores == 0.0)
    others = ~newcomers
    if not newcomers.any():
        return allocate(scores, tasks, rng)
    n = scores.size
    if not others.any():
        return spread(tasks, newcomers, n, rng)
    share = -(-tasks // n)
    for_newcomers = min(tasks, share * int(np.count_nonzero(newcomers)))
    allocation = spread(for_newcomers, newcomers, n, rng)
    if tasks > for_newcomers:
        allocation[others] = allocate(scores[others], tasks - for_newcomers, rng)
    return allocation
