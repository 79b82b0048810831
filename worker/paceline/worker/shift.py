"""One rank's part in the tasks of an order: draws them from the heap, computes them, and sums their gradients up."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from paceline.contribution import ContributionBuffer
from paceline.coordination.events import TaskFailure, TaskResult
from paceline.gradients import TaskRunner
from paceline.worker.execution import Executor, FinishedTask, GivenUpTask
from paceline.worker.leases import FailedTask
from paceline.worker.team import Json, Team


@dataclasses.dataclass(slots=True)
class Shift:
    """What a rank did.

    Attributes:
        results, failures: of its tasks.
        given_up_s: seconds of a task that nobody wanted any more.
        lowest: the lowest task in its sum; None: it is empty.
    """

    results: list[TaskResult] = dataclasses.field(default_factory=list)
    failures: list[FailedTask] = dataclasses.field(default_factory=list)
    given_up_s: float = 0.0
    lowest: int | None = None

    @property
    def seconds(self) -> float:
        """Of all that it did."""
        done = sum(result.seconds for result in self.results)
        return done + sum(failed.seconds for failed in self.failures) + self.given_up_s

    def to_json(self) -> Json:
        """Give it as JSON values."""
        failures: list[Json] = [{**dataclasses.asdict(one), "failure": one.failure.value} for one in self.failures]
        results = [dataclasses.asdict(one) for one in self.results]
        return {"results": results, "failures": failures, "given_up_s": self.given_up_s, "lowest": self.lowest}

    @classmethod
    def from_json(cls, document: Json) -> Shift:
        """Read what to_json gave."""

        def result(told: dict[str, Any]) -> TaskResult:
            return TaskResult(**{**told, "sums": tuple((name, value) for name, value in told["sums"])})

        return cls(
            results=[result(one) for one in document["results"]],
            failures=[FailedTask(**{**one, "failure": TaskFailure(one["failure"])}) for one in document["failures"]],
            given_up_s=document["given_up_s"],
            lowest=document["lowest"],
        )


def work(
    team: Team,
    executor: Executor,
    runner: TaskRunner,
    total: ContributionBuffer,
    tasks: Sequence[int],
    *,
    limit_s: float,
    wanted: Callable[[], bool],
    more: Callable[[], bool] = lambda: True,
) -> Shift:
    """Do tasks of the present order until the heap is empty.

    Args:
        total: gets the sum of the gradients; emptied first.
        limit_s: see Executor.run.
        wanted: a task that is computed is still of use.
        more: further ones may be begun.
    """
    total.zero_()
    shift = Shift()
    while wanted() and more() and (task := team.draw(tasks)) is not None:
        outcome = executor.run(task, limit_s, wanted)
        match outcome:
            case FinishedTask(result, gradient):
                if gradient is not None:
                    runner.accumulate(total, gradient)
                shift.results.append(result)
            case FailedTask():
                shift.failures.append(outcome)
            case GivenUpTask(seconds):
                shift.given_up_s += seconds
    shift.lowest = total.lowest_task
    return shift
