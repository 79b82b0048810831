"""The model of a simulated run: no tensors, but the exact record of what was added to which version."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from paceline.coordination.effects import ApplyUpdate
from paceline.coordination.events import TaskResult
from paceline.coordination.ids import LeaseId, TaskId, WorkerName
from paceline.errors import PacelineError


class SimulationError(PacelineError):
    """The coordinator ordered what no shell could do, or the simulated world has come to a stand."""


@dataclass(frozen=True, slots=True)
class Applied:
    """One contribution as it was added."""

    lease: LeaseId
    worker: WorkerName
    version: int
    results: tuple[TaskResult, ...]
    weight: float


@dataclass(frozen=True, slots=True)
class Update:
    """One step of the model: what it was made of, in the order of adding."""

    version: int
    at_s: float
    order: ApplyUpdate
    contributions: tuple[Applied, ...]

    def tasks(self) -> list[TaskId]:
        """Task ids in the sum, ascending, each as often as it was added."""
        return sorted(result.task for applied in self.contributions for result in applied.results)


class SimulatedModel:
    """Keeps the sum and the updates, and checks each order against what was really added."""

    def __init__(self) -> None:
        self.version = 0
        self.updates: list[Update] = []
        self._sum: list[Applied] = []

    def add(self, applied: Applied) -> None:
        """Add a verified contribution to the sum."""
        self._sum.append(applied)

    def update(self, order: ApplyUpdate, now: float) -> Update:
        """Make the step.

        Raises:
            SimulationError: the order does not fit what was added.
        """
        results = [result for applied in self._sum for result in applied.results]
        samples = sum(result.samples for result in results)
        loss = sum(result.loss_sum for result in results) / samples if samples else 0.0
        if order.version != self.version + 1:
            raise SimulationError(f"update to version {order.version} was ordered: expected {self.version + 1}")
        if (order.samples, order.tasks) != (samples, len(results)) or abs(order.loss - loss) > 1e-9 * abs(loss):
            raise SimulationError(
                f"{order} was ordered: expected {samples} samples of {len(results)} tasks with mean loss {loss}"
            )
        update = Update(order.version, now, order, tuple(self._sum))
        self.updates.append(update)
        self._sum.clear()
        self.version = order.version
        return update

    def applied_tasks(self) -> Iterator[TaskId]:
        """Give the ids in all sums, each as often as it was added, the sum in progress included."""
        for contributions in [*(update.contributions for update in self.updates), self._sum]:
            for applied in contributions:
                for result in applied.results:
                    yield result.task
