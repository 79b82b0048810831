"""Brings a run's events from the server's process to the callbacks of the process that started it."""

from __future__ import annotations

import queue
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from paceline.callbacks import (
    Callback,
    EndEvent,
    EvaluationEvent,
    Event,
    RoundEvent,
    RunInfo,
    WorkerEvent,
    from_document,
    tell,
    to_document,
)
from paceline.tracebacks import describe


class EventReporter(Callback):
    """In the server's process: writes each event as a report. The end is a report of its own.

    Args:
        report: writes one, of a kind.
    """

    def __init__(self, report: Callable[[str, object], None]) -> None:
        self._report = report

    def on_start(self, run: RunInfo) -> None:
        """See Callback."""
        self._report("event", to_document(run))

    def on_round(self, event: RoundEvent) -> None:
        """See Callback."""
        self._report("event", to_document(event))

    def on_evaluation(self, event: EvaluationEvent) -> None:
        """See Callback."""
        self._report("event", to_document(event))

    def on_worker(self, event: WorkerEvent) -> None:
        """See Callback."""
        self._report("event", to_document(event))


class Dispatcher:
    """In the caller's process: gives events to callbacks, in a thread of its own.

    Args:
        callbacks: one that raises is told of and switched off.
        note: shows a line.
    """

    def __init__(self, callbacks: Sequence[Callback], note: Callable[[str], None]) -> None:
        self._callbacks = list(callbacks)
        self._note = note
        self._events: queue.SimpleQueue[Event | RunInfo | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="callbacks", daemon=True)
        self._thread.start()

    def take(self, document: dict[str, Any]) -> None:
        """Take an event as it was reported."""
        self._events.put(from_document(document))

    def end(self, event: EndEvent) -> None:
        """Tell of the end, and wait until all is told."""
        self._events.put(event)
        self.close()

    def close(self) -> None:
        """Wait until all is told."""
        self._events.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (event := self._events.get()) is not None:
            for callback in list(self._callbacks):
                try:
                    tell(callback, event)
                except Exception as error:
                    self._callbacks.remove(callback)
                    name = type(callback).__name__
                    self._note(f"callback {name} raised {describe(error)} and is switched off")
                    traceback.print_exception(error, file=sys.stderr)
