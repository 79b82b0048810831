"""What follows from what `paceline check` measured: what links must carry, and how many tasks a round should have.

All workers count as this machine. Pure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from paceline.link_rates import ROUND_OVERHEAD_S, written_rate

# Transfer is to take no more than this share of a round, and computing no less than the rest.
TRANSFER_SHARE = 0.2
# With fewer tasks for each worker, unequal ones cannot be given unequal shares.
TASKS_EACH = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundCosts:
    """What a round costs.

    Attributes:
        task_s: seconds per task.
        update_s: of the optimizer's step on the server, while workers wait.
        worker_bytes: what a worker pulls and pushes in a round.
        workers: how many there are.
        tasks: of a round, as it is set.
        epoch_tasks: tasks in a pass over the data.
    """

    task_s: float
    update_s: float
    worker_bytes: int
    workers: int
    tasks: int
    epoch_tasks: float


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Tasks per round, and why."""

    tasks: int
    reason: str


def computing_s(costs: RoundCosts, tasks: int) -> float:
    """Give the seconds that each worker with work computes in a round of so many tasks, which are spread evenly."""
    return costs.task_s * max(1.0, tasks / costs.workers)


def needed_rate(costs: RoundCosts) -> float:
    """Give the bytes a second that a worker's link must carry for transfer to take TRANSFER_SHARE of a round.

    A worker pulls, computes, and pushes, one after another: transfer / (transfer + computing) = share.
    """
    return costs.worker_bytes * (1.0 - TRANSFER_SHARE) / (TRANSFER_SHARE * computing_s(costs, costs.tasks))


def transfer_share(costs: RoundCosts, link: float) -> float:
    """Give the share of a round that transfer takes on a link of so many bytes a second."""
    transfer_s = costs.worker_bytes / link
    return transfer_s / (transfer_s + computing_s(costs, costs.tasks))


def suggest(costs: RoundCosts, link: float) -> Suggestion:
    """Give the fewest tasks per round that leave workers little to wait for, and unequal ones their shares.

    More tasks make larger batches and fewer updates of an epoch, so the smallest is the best for training.

    Args:
        link: bytes a second that each worker's link carries.
    """
    transfer_s = costs.worker_bytes / link
    waiting_s = transfer_s + costs.update_s + ROUND_OVERHEAD_S
    for_computing = math.ceil(waiting_s * (1.0 - TRANSFER_SHARE) / TRANSFER_SHARE / costs.task_s)
    each = max(TASKS_EACH, for_computing)
    tasks = costs.workers * each
    product = f"{costs.workers} {'worker' if costs.workers == 1 else 'workers'} x {each} tasks"
    what = "unequal workers cannot be given unequal shares"
    if for_computing > TASKS_EACH:
        what = (
            f"workers compute less than {1 - TRANSFER_SHARE:.0%} of a round ({transfer_s:.2g} s of transfer at "
            f"{written_rate(link)}, {costs.update_s:.2g} s of update, {ROUND_OVERHEAD_S:g} s of messages)"
        )
    short = costs.task_s < ROUND_OVERHEAD_S
    larger = f"tasks of {costs.task_s:.2g} s are short, and a larger --micro-batch does the same with fewer of them"
    if tasks <= costs.epoch_tasks:
        return Suggestion(tasks, f"{product}: with fewer, {what}{f'; {larger}' if short else ''}")
    remedy = (
        "fewer workers or faster links" if for_computing > TASKS_EACH else "fewer workers or a smaller --micro-batch"
    )
    most = max(1, math.floor(costs.epoch_tasks))
    remedy = larger if short else f"{remedy} would help"
    return Suggestion(most, f"as many as an epoch has, where {product} are wanted: with fewer, {what}; {remedy}")
