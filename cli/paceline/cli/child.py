"""What a child process of `paceline run` executes: a server or a worker, told its settings through its standard input.

A child never outlives its parent: on Linux the kernel ends it when the parent is gone, even by `kill -9`. It has a
session of its own, so that a Ctrl-C of the terminal reaches the parent alone, which then ends all in order.

A server reports to its parent, one JSON document a line, through the descriptor that it is given:
``{"started": {address, run_dir, notes}}``, then ``{"ended": {outcome, reason, summary, run_dir, try_again}}`` or
``{"error": {message, exit_code, traceback}}``. Where the parent has callbacks, ``{"event": ...}`` come between them.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import structlog

from paceline.callbacks import Callback, EvaluationEvent, RoundEvent, StartEvent, WorkerEvent, to_document
from paceline.errors import JobImportError, PacelineError
from paceline.settings import RunSettings, WorkerSettings

PR_SET_PDEATHSIG = 1
Role = Literal["server", "worker"]


def main(role: str, parent: int, reports_to: int) -> int:
    """Run a child.

    Args:
        parent: its process id.
        reports_to: descriptor for its reports; a worker makes none.
    """
    end_with(parent, signal.SIGTERM if role == "server" else signal.SIGKILL)
    return _serve(reports_to) if role == "server" else _work()


def end_with(parent: int, death_signal: signal.Signals) -> None:
    """Have the kernel send this process a signal when its parent is gone, where it can."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, death_signal)
    # It may have died before we asked to be told.
    if os.getppid() != parent:
        sys.exit(1)


def _serve(reports_to: int) -> int:
    # All imports of weight come before the settings are waited for: they are what a start takes its time for.
    from paceline.server import Started, run_server
    from paceline.server.log import configure_logging

    configure_logging()
    # The parent shows how the run goes; what it cannot see are warnings and errors.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("warning"))

    pipe, whole = os.fdopen(reports_to, "w", encoding="utf-8"), threading.Lock()

    def report(kind: str, content: object) -> None:
        # Events come from another thread, and the pipe takes only short lines in one piece.
        with whole:
            pipe.write(json.dumps({kind: content}) + "\n")
            pipe.flush()

    try:
        told = json.loads(sys.stdin.readline())
        settings = RunSettings.model_validate(told["settings"])
        resume = None if told["resume"] is None else Path(told["resume"])

        def started(what: Started) -> None:
            report("started", {"address": what.address, "run_dir": str(what.run_dir), "notes": what.notes})

        callbacks = [_Relay(lambda event: report("event", event))] if told.get("tell") else []
        result = run_server(settings, resume, on_started=started, callbacks=callbacks)
    except PacelineError as error:
        ours = "".join(traceback.format_exception(error)) if error.exit_code == PacelineError.exit_code else ""
        users = error.traceback_text if isinstance(error, JobImportError) else ours
        report("error", {"message": str(error), "exit_code": error.exit_code, "traceback": users})
        return error.exit_code
    except Exception as error:
        trace = "".join(traceback.format_exception(error))
        report("error", {"message": str(error), "exit_code": PacelineError.exit_code, "traceback": trace})
        return PacelineError.exit_code
    ended: dict[str, Any] = {
        "outcome": result.outcome.value,
        "reason": result.reason,
        "summary": result.summary,
        "run_dir": str(result.run_dir),
        "try_again": result.try_again,
    }
    report("ended", ended)
    return 0


class _Relay(Callback):
    """Tells the parent what happens. The end it knows better itself."""

    def __init__(self, tell: Callable[[dict[str, Any]], None]) -> None:
        self._tell = tell

    def _relay(self, event: StartEvent | RoundEvent | EvaluationEvent | WorkerEvent) -> None:
        self._tell(to_document(event))

    on_start = on_round = on_evaluation = on_worker = _relay


def _work() -> int:
    from paceline.worker import run_worker

    line = sys.stdin.readline()
    # The parent closes the pipe without a word where its server could not start.
    return run_worker(WorkerSettings.model_validate_json(line)) if line else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
