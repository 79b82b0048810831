"""Judges what workers measured: makes the metrics of a version, keeps the best, lets the learning rate follow.

Meanwhile no round is open, so that the model itself can be read, and what follows holds from the next round on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from paceline.coordination.effects import JudgeVersion
from paceline.coordination.events import VersionJudged
from paceline.errors import RunFailedError
from paceline.evaluation import metrics_of
from paceline.flat import FlatModel
from paceline.job import Job
from paceline.server.driver import Driver
from paceline.server.evaluations import EvaluationFault
from paceline.server.keeper import BestKeeper
from paceline.server.model import ServerModel, UpdateFault
from paceline.server.workthread import WorkThread
from paceline.tracebacks import describe, users_traceback


class Validations:
    """Evaluations of one run that its workers do. Owned by the event loop.

    Args:
        job: whose metrics() is called.
        flat, model, model_thread: the model, and the thread that alone touches it.
        best: keeps the best version; None: nobody does.

    Attributes:
        metrics: of the latest evaluation.
        on_metrics: called with each version's metrics.
        on_fault: called when they could not be made.
    """

    def __init__(
        self, job: Job, flat: FlatModel, model: ServerModel, model_thread: WorkThread, best: BestKeeper | None
    ) -> None:
        self.metrics: Mapping[str, float] = {}
        self.on_metrics: Callable[[int, Mapping[str, float]], None] = lambda version, metrics: None
        self.on_fault: Callable[[EvaluationFault], None] = lambda fault: None
        self._job = job
        self._flat = flat
        self._model = model
        self._model_thread = model_thread
        self._best = best

    def connect(self, driver: Driver) -> None:
        """Say who hears that a version was judged."""
        self._driver = driver

    def judge(self, effect: JudgeVersion) -> None:
        """Make a version's metrics, and see to what follows from them."""
        work = partial(self._judged, effect.version, dict(effect.means))
        self._model_thread.submit(work, partial(self._done, effect.version))

    def updated(self, version: int) -> None:
        """Hear of a new version: the coordinator says when one is measured."""

    async def finish(self, version: int) -> None:
        """Nothing is left: a run is done only when its last version was measured."""

    def stop(self) -> None:
        """Begin no further evaluation: the coordinator does not."""

    def _judged(self, version: int, means: Mapping[str, float]) -> Mapping[str, float] | EvaluationFault:
        try:
            metrics = metrics_of(self._job, means)
            if self._best is not None:
                self._best.consider(version, metrics, self._flat)
        except RunFailedError as error:
            return EvaluationFault(str(error), users_traceback(error.__cause__) if error.__cause__ else "")
        except SystemExit as error:
            return EvaluationFault(f"metrics() raised {describe(error)}", users_traceback(error))
        fault = self._model.measured(metrics)
        return EvaluationFault(fault.message, fault.traceback_text) if isinstance(fault, UpdateFault) else metrics

    def _done(self, version: int, result: Mapping[str, float] | EvaluationFault) -> None:
        if isinstance(result, EvaluationFault):
            self.on_fault(result)
            return
        self.metrics = result
        # A goal that is met is heard of before the judgement, so that no further round begins.
        self.on_metrics(version, result)
        self._driver.post(VersionJudged(version))
