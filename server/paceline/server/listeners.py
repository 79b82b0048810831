"""Tells callbacks what happens, in a thread of its own: what they do, and how long, is no business of the rounds."""

from __future__ import annotations

import threading
import traceback
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from paceline.callbacks import (
    Callback,
    EndEvent,
    EvaluationEvent,
    Event,
    RoundEvent,
    RunInfo,
    WorkerEvent,
    WorkerShare,
    tell,
)
from paceline.coordination.effects import Effect, RoundRecord, WorkerChanged
from paceline.tracebacks import describe

# Rounds that wait to be told; of a callback that is slower than the rounds the oldest of them are left out.
WAITING_ROUNDS = 10_000
# After the end of the run callbacks have so long to finish (an upload, say).
LAST_WORDS_S = 60.0


class Listeners:
    """The callbacks of one run. Its methods are the event loop's.

    Args:
        callbacks: in the order in which they are told.
    """

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self._callbacks = list(callbacks)
        self._events: deque[Event | RunInfo] = deque()
        self._rounds = 0
        self._left_out = 0
        self._over = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="callbacks", daemon=True)
        self._log = structlog.get_logger()

    def start(self, run: RunInfo) -> None:
        """Begin."""
        if self._callbacks:
            self._thread.start()
            self._put(run)

    def observe(self, effect: Effect, now_s: float) -> None:
        """Tell of an effect of the coordinator, if it is of interest."""
        if not self._callbacks:
            return
        if isinstance(effect, RoundRecord):
            self._put(_round(effect))
        elif isinstance(effect, WorkerChanged):
            self._put(WorkerEvent(effect.name, effect.state, effect.reason, now_s))

    def evaluated(self, version: int, metrics: Mapping[str, float], now_s: float) -> None:
        """Tell of a measured version."""
        if self._callbacks:
            self._put(EvaluationEvent(version, dict(metrics), now_s))

    def end(self, outcome: str, reason: str, summary: Mapping[str, Any]) -> None:
        """Tell of the end."""
        if self._callbacks:
            self._put(EndEvent(outcome, reason, summary))

    def close(self, patience_s: float = LAST_WORDS_S) -> None:
        """Wait until all is told, but not for ever."""
        with self._changed:
            self._over = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(patience_s)
            if self._thread.is_alive():
                self._log.warning(f"callbacks did not finish within {patience_s:g} s of the end of the run")
        if self._left_out:
            self._log.warning(f"callbacks were too slow: {self._left_out} rounds were not told them")

    def _put(self, event: Event | RunInfo) -> None:
        with self._changed:
            if isinstance(event, RoundEvent):
                self._rounds += 1
                if self._rounds > WAITING_ROUNDS:
                    self._events.remove(next(old for old in self._events if isinstance(old, RoundEvent)))
                    self._rounds -= 1
                    self._left_out += 1
            self._events.append(event)
            self._changed.notify()

    def _run(self) -> None:
        while (event := self._next()) is not None:
            for callback in list(self._callbacks):
                self._tell(callback, event)

    def _next(self) -> Event | RunInfo | None:
        with self._changed:
            self._changed.wait_for(lambda: bool(self._events) or self._over)
            if not self._events:
                return None
            event = self._events.popleft()
            self._rounds -= isinstance(event, RoundEvent)
            return event

    def _tell(self, callback: Callback, event: Event | RunInfo) -> None:
        try:
            tell(callback, event)
        except BaseException as error:  # SystemExit too: it would end the thread in silence
            self._callbacks.remove(callback)
            name = type(callback).__name__
            self._log.error(f"callback {name} raised {describe(error)} and is switched off\n{traceback.format_exc()}")


def _round(record: RoundRecord) -> RoundEvent:
    wasted_s = sum(worker.wasted_s for worker in record.workers)
    return RoundEvent(
        round=record.round,
        loss=record.loss,
        seconds=record.seconds,
        elapsed_s=record.opened_s + record.seconds,
        samples=record.samples,
        tasks=record.tasks_used,
        worker_s=wasted_s + sum(worker.used_s for worker in record.workers),
        wasted_s=wasted_s,
        means=dict(record.means),
        workers=tuple(
            WorkerShare(
                name=worker.name,
                tasks=worker.used,
                used_s=worker.used_s,
                wasted_s=worker.wasted_s,
                idle_s=worker.idle_s,
                data_s=worker.data_s,
            )
            for worker in record.workers
        ),
    )
