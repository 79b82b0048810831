"""What the all-tasks policies have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paceline.coordination.ids import WorkerName
from paceline.coordination.plan import Count, Plan, PolicyState, Update, View, WorkerView
from paceline.coordination.saved import Saved, generator_from, generator_state
from paceline.errors import UsageError


@dataclass(frozen=True, slots=True)
class Columns:
    """The view's statistics as arrays of shape (n_workers,)."""

    tasks_done: NDArray[np.int64]
    busy_s: NDArray[np.float64]
    rounds: NDArray[np.int64]
    founders: NDArray[np.bool_]


def columns(view: View) -> Columns:
    """Gather a view's statistics."""
    return Columns(
        np.array([w.tasks_done for w in view.workers], dtype=np.int64),
        np.array([w.busy_s for w in view.workers], dtype=np.float64),
        np.array([w.rounds for w in view.workers], dtype=np.int64),
        np.array([w.founder for w in view.workers], dtype=np.bool_),
    )


def all_tasks(view: View, tasks: NDArray[np.int64], reason: str) -> Plan:
    """Plan a round that uses every task it hands out: no refill, closed when all are in."""
    named: dict[WorkerName, int] = {
        worker.name: count for worker, count in zip(view.workers, tasks.tolist(), strict=True) if count
    }
    return Plan(allocation=named, quota=Count(view.tasks), reason=reason)


def checked_means(policy: str, means_s: Mapping[str, float]) -> dict[str, float]:
    """Give the means of a policy that needs them.

    Raises:
        UsageError: no means, or one that is not above 0.
    """
    if not means_s:
        raise UsageError(f"policy {policy} has no means: expected seconds per task of each worker (--means)")
    for worker, mean_s in means_s.items():
        if not 0 < mean_s < float("inf"):
            raise UsageError(f"mean of worker {worker!r} is {mean_s}: expected seconds per task above 0")
    return dict(means_s)


def one_each(view: View) -> dict[WorkerName, int]:
    """Give each free worker a task."""
    return {worker.name: 1 for worker in view.workers}


def clipped(count: int, view: View) -> tuple[int, str]:
    """Ask for no more workers than there are, and say so."""
    if count <= view.joined:
        return count, ""
    return max(view.joined, 1), f" ({count} were asked for)"


def fastest(view: View) -> Plan:
    """Plan lost tasks again, one for each of the workers with the smallest learned means, unseen ones last."""

    def mean_s(worker: WorkerView) -> float:
        return worker.busy_s / worker.tasks_done if worker.tasks_done else float("inf")

    chosen = sorted(view.workers, key=mean_s)[: view.tasks]
    allocation = {worker.name: 1 for worker in chosen}
    return Plan(
        allocation=allocation, quota=Count(view.tasks), reason=f"{view.tasks} lost tasks planned again, fastest first"
    )


class Deaf:
    """A policy that learns nothing from the model's updates, keeps nothing and can begin with a single worker."""

    name: str

    @property
    def needs(self) -> int:
        """See `Policy`."""
        return 1

    def updated(self, update: Update) -> None:
        """Ignore the update."""
        del update

    def state(self) -> PolicyState:
        """See `Policy.state`."""
        return {}

    def restore(self, state: PolicyState) -> None:
        """See `Policy.restore`."""
        Saved(f"state of policy {self.name}", state).fields()


class Drawing(Deaf):
    """A policy that keeps nothing but its generator: views tell it all that was learned.

    Args:
        rng: all its chance.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def state(self) -> PolicyState:
        """See `Policy.state`."""
        return {"rng": generator_state(self._rng)}

    def restore(self, state: PolicyState) -> None:
        """See `Policy.restore`."""
        (rng,) = Saved(f"state of policy {self.name}", state).fields("rng")
        self._rng = generator_from(rng, self._rng)
