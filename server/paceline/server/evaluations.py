"""Measures versions while rounds go on: on a copy of the model, in a thread of its own.

There is one copy. While it is being measured, further evaluations that fall due become one, which then takes the
version of that moment; so evaluation may be slow without rounds waiting or memory growing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch

from paceline.errors import RunFailedError
from paceline.flat import FlatModel
from paceline.server.keeper import BestKeeper
from paceline.server.model import ServerModel
from paceline.server.workthread import WorkThread
from paceline.tracebacks import describe, users_traceback

Goal = tuple[str, str, float]
# Gives a model's metrics, or raises a RunFailedError.
Measure = Callable[[torch.nn.Module], Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class EvaluationFault:
    """An evaluation that failed: one line, and the user's traceback where his code raised."""

    message: str
    traceback_text: str = ""


class Evaluations:
    """Evaluations of one run. Owned by the event loop.

    Args:
        measure: measures a model.
        copy: the model that is measured.
        model, model_thread: the model that is trained, and the thread that alone touches it.
        thread: where evaluate runs.
        every: rounds between evaluations, 0: none but the last.
        best: keeps the best version; None: nobody does.

    Attributes:
        metrics: of the latest evaluation.
        on_metrics: called with each version's metrics.
        on_fault: called when an evaluation failed.
    """

    def __init__(
        self,
        measure: Measure,
        copy: FlatModel,
        model: ServerModel,
        model_thread: WorkThread,
        thread: WorkThread,
        every: int,
        best: BestKeeper | None = None,
    ) -> None:
        self.metrics: Mapping[str, float] = {}
        self.on_metrics: Callable[[int, Mapping[str, float]], None] = lambda version, metrics: None
        self.on_fault: Callable[[EvaluationFault], None] = lambda fault: None
        self._measure = measure
        self._copy = copy
        self._model = model
        self._model_thread = model_thread
        self._thread = thread
        self._every = every
        self._best = best
        self._measured = -1
        self._due = False
        self._idle = asyncio.Event()
        self._idle.set()

    def updated(self, version: int) -> None:
        """Hear of a new version."""
        if self._every and version % self._every == 0:
            self._due = True
            self._begin()

    async def finish(self, version: int) -> None:
        """Measure the last version, unless that was done, and return when it is."""
        self._due = False
        await self._idle.wait()
        if self._measured != version:
            self._due = True
            self._begin()
            await self._idle.wait()

    def stop(self) -> None:
        """Begin no further evaluation."""
        self._due, self._every = False, 0

    def _begin(self) -> None:
        if self._due and self._idle.is_set():
            self._due = False
            self._idle.clear()
            self._model_thread.submit(self._copy_model, self._copied)

    def _copy_model(self) -> int | EvaluationFault:
        try:
            return self._model.copy_to(self._copy)
        except Exception as error:
            return EvaluationFault(f"the model could not be copied for evaluate(): {describe(error)}")

    def _copied(self, version: int | EvaluationFault) -> None:
        if isinstance(version, EvaluationFault):
            self._done(self._measured, version)
        else:
            self._thread.submit(partial(self._evaluate, version), lambda result: self._done(version, result))

    def _evaluate(self, version: int) -> Mapping[str, float] | EvaluationFault:
        try:
            metrics = self._measure(self._copy.module)
            if self._best is not None:
                self._best.consider(version, metrics, self._copy)
            return metrics
        except RunFailedError as error:
            return EvaluationFault(str(error), users_traceback(error.__cause__) if error.__cause__ else "")
        except SystemExit as error:
            return EvaluationFault(f"evaluate() raised {describe(error)}", users_traceback(error))

    def _done(self, version: int, result: Mapping[str, float] | EvaluationFault) -> None:
        self._measured = version
        self._idle.set()
        if isinstance(result, EvaluationFault):
            self.on_fault(result)
        else:
            self.metrics = result
            self.on_metrics(version, result)
        self._begin()


def goal_is_met(goal: Goal, metrics: Mapping[str, float]) -> bool:
    """Tell whether a version is good enough.

    Raises:
        RunFailedError: the evaluation gave no metric of the goal's name.
    """
    name, relation, bound = goal
    if name not in metrics:
        known = ", ".join(sorted(metrics)) or "nothing"
        raise RunFailedError(f"until names metric {name!r}, but the evaluation gave {known}")
    return metrics[name] >= bound if relation == ">=" else metrics[name] <= bound
