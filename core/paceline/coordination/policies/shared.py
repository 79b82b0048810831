"""What the all-tasks policies have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paceline.coordination.ids import WorkerName
from paceline.coordination.plan import Count, Plan, View


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


class Deaf:
    """A policy that learns nothing from the model's updates."""

    def updated(self, version: int, loss: float, scalars: Mapping[str, float]) -> None:
        """Ignore the update."""
        del version, loss, scalars
