"""Rank 0's side of a worker of several processes: what it has the others do, and what it makes of their answers."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence

from paceline.contribution import ContributionBuffer
from paceline.coordination.events import TaskResult
from paceline.errors import SettingsError, TryAgainError
from paceline.fingerprint import JobFingerprint, differences
from paceline.settings import SharedSettings
from paceline.worker.agreement import BuiltJob
from paceline.worker.execution import Executor
from paceline.worker.leases import FailedTask
from paceline.worker.shift import Shift, work
from paceline.worker.team import Json, Team

# Where this worker is to leave, another process without progress for so long is taken for dead: torchrun tells all
# to end when one of them has died.
_SILENT_LIMIT_S = 12.0


@dataclasses.dataclass(frozen=True, slots=True)
class TeamWork:
    """What all ranks did of some tasks.

    Attributes:
        results: their seconds are scaled so that they add up to the time that all took together: to the server this
            is one worker, which does one task at a time.
        wasted_s: of what nobody wanted any more.
    """

    results: tuple[TaskResult, ...]
    failures: tuple[FailedTask, ...]
    wasted_s: float


class Leader:
    """Has all ranks compute.

    Args:
        worked: hears of the others' progress.
        ends: this worker was told to leave.
    """

    def __init__(self, team: Team, worked: Callable[[], None], ends: Callable[[], bool]) -> None:
        self._team = team
        self._worked = worked
        self._ends = ends
        self._steps = 0
        self._progress_s = 0.0
        self._total: ContributionBuffer

    @property
    def size(self) -> int:
        """Number of processes."""
        return self._team.place.size

    def order_build(self, shared: SharedSettings) -> None:
        """Have the others build the job, while this one does."""
        self._team.order("build", shared=shared.model_dump_json())

    def built(self, built: BuiltJob) -> None:
        """See that all have built the same job.

        Raises:
            SettingsError: one has another.
        """
        self._total = built.runner.new_sum()
        for rank, answer in enumerate(self._answers(self._look), 1):
            different = differences(built.fingerprint, JobFingerprint.from_json(answer["fingerprint"]))
            if different:
                raise SettingsError(f"rank {rank} has built another job than rank 0: {'; '.join(different)}")

    def spread_constants(self, built: BuiltJob) -> None:
        """Give the others what travels once."""
        self._team.order("constants")
        self._team.spread(built.flat.constants_view)
        self._answers(self._look)

    def spread_version(self, built: BuiltJob, loss_scale: float) -> None:
        """Give the others the version that this rank has."""
        self._team.order("version", loss_scale=loss_scale)
        self._team.spread(built.flat.version_view)

    def compute(
        self,
        built: BuiltJob,
        executor: Executor,
        tasks: Sequence[int],
        limit_s: float,
        wanted: Callable[[], bool],
        total: Callable[[], ContributionBuffer],
    ) -> TeamWork:
        """Have all ranks do these tasks, each as many as its speed lets it.

        Args:
            limit_s: see Executor.run.
            wanted: they are still of use.
            total: gives the lease's sum, to which theirs is added where there is any.
        """
        began = time.monotonic()
        self._team.order("tasks", tasks=list(tasks), limit_s=limit_s)

        def more() -> bool:
            if self._ends():
                self._team.close_heap(tasks)
            return not self._ends()

        own = work(self._team, executor, built.runner, self._total, tasks, limit_s=limit_s, wanted=wanted, more=more)

        def look() -> None:
            if not wanted():
                self._team.halt()
            more()
            self._look()

        if not wanted():
            self._team.halt()
        shifts = [own, *(Shift.from_json(answer) for answer in self._answers(look))]
        self._add_up(shifts, wanted, total)
        return _together(shifts, time.monotonic() - began, wanted=wanted())

    def end(self) -> None:
        """Have the others end, if they can be reached."""
        # All of torch.distributed's errors are of this class.
        with contextlib.suppress(RuntimeError):
            self._team.order("end")

    def _answers(self, look: Callable[[], None]) -> list[Json]:
        self._progress_s = time.monotonic()
        return self._team.answers(look)

    def _add_up(
        self, shifts: Sequence[Shift], wanted: Callable[[], bool], total: Callable[[], ContributionBuffer]
    ) -> None:
        filled = [(shift.lowest, rank) for rank, shift in enumerate(shifts) if shift.lowest is not None]
        if not filled or not wanted():
            return
        task, rank = min(filled)
        self._team.order("sum", lowest=rank)
        self._team.add_up(self._total, rank)
        self._total.lowest_task = task
        total().add_(self._total)

    def _look(self) -> None:
        """See whether the others go on while this rank waits for them.

        Raises:
            TryAgainError: they do not end though they should.
        """
        steps, now_s = self._team.steps(), time.monotonic()
        if steps != self._steps or not self._ends():
            self._progress_s = now_s
        if steps != self._steps:
            self._steps = steps
            self._worked()
        if now_s - self._progress_s > _SILENT_LIMIT_S:
            raise TryAgainError(f"another of the {self.size} processes of this worker does not answer")


def _together(shifts: Sequence[Shift], seconds: float, *, wanted: bool) -> TeamWork:
    own_s = sum(shift.seconds for shift in shifts)
    rate = seconds / own_s if own_s > 0.0 else 1.0
    results = [
        dataclasses.replace(result, seconds=result.seconds * rate, data_s=result.data_s * rate)
        for shift in shifts
        for result in shift.results
    ]
    failures = [
        dataclasses.replace(failed, seconds=failed.seconds * rate) for shift in shifts for failed in shift.failures
    ]
    wasted_s = rate * sum(shift.given_up_s for shift in shifts)
    if not wanted:
        wasted_s += sum(result.seconds for result in results)
        results = []
    return TeamWork(tuple(sorted(results, key=lambda result: result.task)), tuple(failures), wasted_s)
