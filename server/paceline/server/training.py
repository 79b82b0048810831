"""Carries updates and evaluations out: what lies between the coordinator's order and the new version."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import structlog

from paceline.coordination.effects import ApplyUpdate, Finish, Outcome
from paceline.coordination.events import StopRequested, UpdateApplied, UpdateFailed
from paceline.errors import RunFailedError
from paceline.server.driver import Driver
from paceline.server.evaluations import EvaluationFault, Evaluations, Goal, goal_is_met
from paceline.server.model import Image, ServerModel, UpdateFault
from paceline.server.patience import Patience
from paceline.server.pushes import Pushes
from paceline.server.sessions import Sessions
from paceline.server.transfer import Source
from paceline.server.validations import Validations
from paceline.server.workthread import WorkThread
from paceline.tracebacks import describe


class Training:
    """The model's life on the server. Owned by the event loop.

    Args:
        driver: hears of updates.
        model, thread: the model, and the thread that alone touches it.
        evaluations: on the server or by workers; None where the job has none.
        goal: ends the run when a version meets it.
        patience: ends it when versions become no better.

    Attributes:
        version: of the model.
        fault_traceback: of the user's code, where it made an update fail.
        evaluation_fault: of the last evaluation.
        heard: called with each version's metrics.
    """

    def __init__(
        self,
        driver: Driver,
        model: ServerModel,
        thread: WorkThread,
        evaluations: Evaluations | Validations | None,
        goal: Goal | None,
        patience: Patience | None = None,
    ) -> None:
        self.version = 0
        self.fault_traceback = ""
        self.evaluation_fault: EvaluationFault | None = None
        self.heard: Callable[[int, Mapping[str, float]], None] = lambda version, metrics: None
        self._driver = driver
        self._model = model
        self._thread = thread
        self._evaluations = evaluations
        self._goal = goal
        self._patience = patience
        self._log = structlog.get_logger()
        if evaluations is not None:
            evaluations.on_metrics = self._measured
            evaluations.on_fault = self._evaluation_failed

    def connect(self, source: Source, sessions: Sessions, pushes: Pushes) -> None:
        """Say who serves versions, and begin with the first."""
        self._source = source
        self._sessions = sessions
        self._pushes = pushes
        self._serve(self._model.image())

    @property
    def metrics(self) -> Mapping[str, float]:
        """Of the latest evaluation."""
        return {} if self._evaluations is None else self._evaluations.metrics

    def apply(self, effect: ApplyUpdate) -> None:
        """Have the update made; from now on the old version is not served, since its bytes change."""
        self._source.serve(None)
        self._thread.submit(partial(self._model.apply, effect), partial(self._applied, effect.loss))

    async def finish(self, outcome: Outcome, path: Path) -> str:
        """Save the weights, and measure them if the run is done.

        Returns:
            The model's fingerprint.

        Raises:
            RunFailedError: the weights could not be saved.
        """
        try:
            fingerprint = await self._thread.result_of(partial(self._model.save, path))
        except Exception as error:
            raise RunFailedError(f"the model could not be saved as {str(path)!r}: {describe(error)}") from error
        if self._evaluations is not None:
            self._evaluations.stop()
            if outcome is Outcome.DONE:
                await self._evaluations.finish(self.version)
        return fingerprint

    def _serve(self, image: Image) -> None:
        self.version = image.version
        self._source.serve(image.version)
        self._sessions.serve_image(image)

    def _applied(self, loss: float, result: Image | UpdateFault) -> None:
        self._pushes.sum_is_used()
        if isinstance(result, UpdateFault):
            self.fault_traceback = result.traceback_text
            self._driver.post(UpdateFailed(result.message))
            return
        self._serve(result)
        if self._evaluations is not None:
            # Before the coordinator hears of it: the copy is made before anything of the next round is added.
            self._evaluations.updated(result.version)
        if result.skipped:
            self._log.warning("update-skipped", version=result.version, loss_scale=result.loss_scale)
        self._driver.post(
            UpdateApplied(
                version=result.version,
                loss=loss,
                scalars=result.scalars,
                state_crc32c=result.crc32c,
                skipped=result.skipped,
            )
        )

    def _measured(self, version: int, metrics: Mapping[str, float]) -> None:
        self.heard(version, metrics)
        self._log.info("evaluated", version=version, **{name: round(value, 5) for name, value in metrics.items()})
        try:
            reason = self._why_end(version, metrics)
        except RunFailedError as error:
            self._evaluation_failed(EvaluationFault(str(error)))
            return
        if reason:
            self._driver.post(StopRequested(reason, reached=True))

    def _why_end(self, version: int, metrics: Mapping[str, float]) -> str:
        """Say why a run whose version has these metrics ends; empty: it goes on.

        Raises:
            RunFailedError: evaluate gave no metric of the name that is waited for.
        """
        if self._goal is not None and goal_is_met(self._goal, metrics):
            name, relation, bound = self._goal
            return f"version {version} has {name} {metrics[name]:g} {relation} {bound:g}"
        return "" if self._patience is None else self._patience.measured(version, metrics)

    def _evaluation_failed(self, fault: EvaluationFault) -> None:
        self.evaluation_fault = fault
        self._driver.end(Finish(Outcome.FAILED, fault.message, detail=fault.traceback_text))
