"""Makes events for callbacks out of what the coordinator orders. Owned by the event loop, which it never holds up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog

from paceline.callbacks import (
    Callback,
    EndEvent,
    EvaluationEvent,
    Listeners,
    RoundEvent,
    StartEvent,
    WorkerEvent,
    WorkerShare,
)
from paceline.coordination.effects import Effect, Finish, RoundRecord, WorkerChanged
from paceline.settings import RunSettings


class Telling:
    """Tells callbacks of a run.

    Args:
        run_dir: of the run.
    """

    def __init__(self, callbacks: Sequence[Callback], run_dir: Path) -> None:
        self._run_dir = str(run_dir)
        self._listeners = Listeners(callbacks, _report)
        self._anybody = bool(callbacks)

    def start(self, settings: RunSettings, address: str, version: int) -> None:
        """Tell that workers may come; the run goes on from this version."""
        document = settings.model_dump(mode="json")
        event = StartEvent(run_dir=self._run_dir, address=address, round=version, settings=document)
        self._listeners.post(event)

    def observe(self, effect: Effect) -> None:
        """Tell of an effect, if it is one that callbacks hear of."""
        if not self._anybody:
            return
        if type(effect) is RoundRecord:
            self._listeners.post(_round(effect))
        elif type(effect) is WorkerChanged:
            self._listeners.post(WorkerEvent(effect.name, effect.state, effect.reason))

    def evaluated(self, version: int, metrics: Mapping[str, float]) -> None:
        """Tell what a version was found to be."""
        self._listeners.post(EvaluationEvent(version, dict(metrics)))

    def end(self, finish: Finish, summary: Mapping[str, Any]) -> None:
        """Tell the end, and wait a while until all has been heard; called outside of the event loop."""
        event = EndEvent(outcome=finish.outcome.value, reason=finish.reason, run_dir=self._run_dir, summary=summary)
        self._listeners.post(event)
        self._listeners.close()

    def close(self) -> None:
        """Wait for nothing: the run has not begun."""
        self._listeners.close(timeout_s=0.0)


def _round(record: RoundRecord) -> RoundEvent:
    shares = {
        str(worker.name): WorkerShare(
            planned=worker.planned,
            used=worker.used,
            wasted=worker.wasted,
            used_s=worker.used_s,
            wasted_s=worker.wasted_s,
            idle_s=worker.idle_s,
            data_s=worker.data_s,
        )
        for worker in record.workers
    }
    return RoundEvent(
        round=record.round,
        loss=record.loss,
        seconds=record.seconds,
        at_s=record.opened_s + record.seconds,
        tasks=record.tasks_used,
        samples=record.samples,
        reason=record.reason,
        workers=shares,
        means=dict(record.means),
    )


def _report(line: str, traceback_text: str) -> None:
    structlog.get_logger().warning(line + (f"\n{traceback_text.rstrip()}" if traceback_text else ""))
