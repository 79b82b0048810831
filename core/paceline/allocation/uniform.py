"""Uniform allocation: the zero-score rule of ATA and the whole of UTA.

Pure: numpy in, numpy out; chance comes in as a generator.
"""

import numpy as np
import numpy.typing as npt

from paceline.errors import UsageError

MAX_TASKS = 2**40
"""Most tasks of one round: up to here rounding cannot mislead the exact minimiser (see `exact`)."""

FEW = 4096
"""Up to so many random workers are drawn in plain Python, 0.2 us each; more by a few numpy calls over all workers."""


def spread(
    tasks: int, chosen: npt.NDArray[np.bool_] | npt.NDArray[np.int64], n: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Spread tasks evenly over the chosen workers, the remainder over random distinct ones of them.

    With fewer tasks than chosen workers, `tasks` random workers get one each. Draws from `rng` only if there is a
    remainder, and only by `random`, so that the compiled simulator can make the same draws.

    Args:
        tasks: tasks to give out, 1 to 2**40.
        chosen: a mask of shape (n,), or distinct indices of workers; at least one worker.
        n: number of workers.
    Returns:
        tasks per worker, shape (n,), summing to `tasks`; 0 for workers not chosen.
    Raises:
        UsageError: `tasks` is out of range, or nobody is chosen.
    Source: Maranjyan et al. (2025), Alg. 1 (zero scores) and the UTA baseline. The random distinct set for the
        remainder is the rule that reproduces the paper's tables; the text does not state it.
    """
    check_tasks(tasks)
    members = np.flatnonzero(chosen) if chosen.dtype == np.bool_ else chosen
    if members.size == 0:
        raise UsageError("no worker to allocate to: expected at least 1")
    share, remainder = divmod(tasks, members.size)
    allocation = np.zeros(n, dtype=np.int64)
    allocation[members] = share
    if remainder:
        draw = _draw_few if remainder <= FEW else _draw_many
        allocation[members[draw(members.size, remainder, rng)]] += 1
    return allocation


def _draw_few(members: int, size: int, rng: np.random.Generator) -> list[int]:
    """Draw distinct numbers below `members` by the first `size` swaps of a Fisher-Yates shuffle, one draw each."""
    moved: dict[int, int] = {}
    drawn = []
    for place, u in enumerate(rng.random(size).tolist()):
        # Below `members`: u is at most 1 - 2**-53, whose product with a whole number rounds to less than that number.
        other = place + int(u * (members - place))
        drawn.append(moved.get(other, other))
        moved[other] = moved.get(place, place)
    return drawn


def _draw_many(members: int, size: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Draw distinct numbers below `members`: the places of the `size` smallest of so many draws, ties to the first."""
    draws = rng.random(members)
    largest = np.partition(draws, size - 1)[size - 1]
    below = np.flatnonzero(draws < largest)
    return np.concatenate([below, np.flatnonzero(draws == largest)[: size - below.size]])


def check_tasks(tasks: int) -> None:
    """Raise UsageError unless `tasks` is a number of tasks that one round can have."""
    if not 1 <= tasks <= MAX_TASKS:
        raise UsageError(f"tasks per round is {tasks}: expected 1 to 2**40")
