"""A process of a worker's that is not its first: it does what rank 0 says, and never speaks to the server."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from types import FrameType

import torch

from paceline.contribution import ContributionBuffer
from paceline.errors import PacelineError
from paceline.job import Job
from paceline.settings import SharedSettings, WorkerSettings
from paceline.worker.agreement import BuiltJob, build, cache_of, warm_up
from paceline.worker.execution import Executor, Slowness
from paceline.worker.samples import Samples
from paceline.worker.shift import work
from paceline.worker.team import Json, Team

# A worker that is told to end drains, and rank 0 says when that is over. torchrun kills what is there after 30 s.
DRAIN_LIMIT_S = 25.0
_NAP_S = 0.01


class Follower:
    """Carries rank 0's orders out.

    Args:
        settings: as the user gave them; the same for all ranks.
        job: loaded from settings.job.
        device: this rank's.
        say: tells people, in one line.
    """

    def __init__(
        self, settings: WorkerSettings, job: Job, device: torch.device, team: Team, say: Callable[[str], None]
    ) -> None:
        self._settings = settings
        self._job = job
        self._device = device
        self._team = team
        self._say = say
        self._slowness = Slowness.of(settings, f"rank {team.place.rank}")
        self._samples = Samples(settings, device, say, team.step)
        self._ends_at: float | None = None
        self._built: BuiltJob
        self._executor: Executor
        self._total: ContributionBuffer
        self._warm = False

    def run(self) -> None:
        """Work until rank 0 says that it is over."""
        before = signal.signal(signal.SIGTERM, self._told_to_end)
        try:
            while (order := self._team.next_order(self._goes_on)) is not None and order["do"] != "end":
                self._take(order)
        finally:
            signal.signal(signal.SIGTERM, before)
            self._samples.close()

    def _told_to_end(self, number: int, frame: FrameType | None) -> None:
        if self._ends_at is None:
            self._ends_at = time.monotonic() + DRAIN_LIMIT_S

    def _goes_on(self) -> bool:
        return self._ends_at is None or time.monotonic() < self._ends_at

    def _take(self, order: Json) -> None:
        match order["do"]:
            case "build":
                self._build(SharedSettings.model_validate_json(order["shared"]))
            case "constants":
                self._constants()
            case "version":
                flat = self._built.flat
                self._team.spread(flat.version_view)
                flat.image.from_host(0, len(flat.version_view))
                self._built.runner.adopt_version(order["loss_scale"])
            case "tasks":
                self._tasks(order)
            case "sum":
                self._team.add_up(self._total, order["lowest"])
            case what:
                raise PacelineError(f"rank 0 orders {what!r}, which this process does not know")

    def _build(self, shared: SharedSettings) -> None:
        self._samples.close()
        cache = cache_of(self._settings, self._team.step)
        self._built = built = build(self._job, shared, self._device, cache)
        self._executor = Executor(built.runner, self._slowness, self._sleep, self._team.step, self._samples.load)
        self._total = built.runner.new_sum()
        self._warm = False
        self._team.answer({"fingerprint": built.fingerprint.to_json()})

    def _constants(self) -> None:
        flat = self._built.flat
        self._team.spread(flat.constants_view)
        flat.image.from_host(len(flat.version_view))
        if not self._warm:
            self._built.runner.notice = self._say
            self._samples.begin(self._built, warm_up(self._built.runner))
            self._warm = True
        self._team.answer({})

    def _tasks(self, order: Json) -> None:
        shift = work(
            self._team,
            self._executor,
            self._built.runner,
            self._total,
            order["tasks"],
            limit_s=order["limit_s"],
            wanted=lambda: not self._team.halted(),
        )
        self._team.answer(shift.to_json())

    def _sleep(self, seconds: float, wanted: Callable[[], bool]) -> None:
        end_s = time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0.0 and wanted():
            time.sleep(min(left_s, _NAP_S))
