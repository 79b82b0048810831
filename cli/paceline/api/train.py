"""`paceline.train`: `paceline run`, called from Python.

Server and workers are processes of their own, as those of the command are: the same bits, and nothing in the caller's
process that could slow it down or be left behind in it (threads, seeds, the limits of the allocator). What happens
there is told to the caller's callbacks through a pipe.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from paceline.api.arguments import run_command
from paceline.api.result import Result, read_history
from paceline.api.shown import make_shown
from paceline.api.spec import spec_of
from paceline.callbacks import Callback, EndEvent, Event, Listeners, StartEvent, checked
from paceline.cli.commands import RunCommand
from paceline.cli.json_file import check_writable, write_json
from paceline.cli.local_run import RunEnd, last_lines, run_locally
from paceline.cli.progress import Progress
from paceline.errors import PacelineError, RunFailedError, UsageError
from paceline.job import Job
from paceline.loading import being_imported

# Sources of notebooks' classes; beside the runs, which need them to be resumed and replayed.
JOBS = Path("runs") / "jobs"


def train(
    job: str | type[Job] | Job | None = None,
    *,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
    **settings: Any,
) -> Result:
    """Train a job on this machine: a server and its workers, as `paceline run` starts them.

    Args:
        job: a class derived from Job, an object of one that takes no arguments, or `path/file.py:Class`. Not needed
            where `resume` names a run.
        callbacks: hear how it goes, in a thread of this process.
        progress: show how it goes: a table on a terminal and in a notebook, lines elsewhere.
        settings: those of `paceline run`, by name: workers=4, policy="greedy", rounds=100, micro_batch=8, data="data".

    Returns:
        How it went.

    Raises:
        UsageError: the job, a callback or a setting is wrong; nothing was started.
        SettingsError: settings contradict each other or the machine.
        RunFailedError: the run failed; what it had is saved.
        KeyboardInterrupt, SystemExit: SIGINT or SIGTERM ended it; its state is saved, and `resume` goes on with it.
    """
    if source := being_imported():
        raise UsageError(
            f"train() is called while {source} is imported for its job: put the call under `if __name__ == '__main__':`"
        )
    for callback in callbacks:
        checked(callback)
    command = run_command(_with_job(job, settings))
    if command.json_file:
        check_writable(command.json_file)
    shown = make_shown(progress)
    try:
        heard = _Heard(callbacks, shown.note if progress else _say)
        end = _run(command, shown, heard)
    finally:
        shown.close()
    if end.signal == signal.SIGINT:
        raise KeyboardInterrupt(f"the run is saved; to go on: paceline.train(resume={str(end.run_dir)!r})")
    if end.signal:
        raise SystemExit(end.exit_code)
    if end.outcome == "failed":
        raise RunFailedError(f"{end.reason} (run directory {str(end.run_dir)!r})")
    return Result(
        outcome=end.outcome,
        reason=end.reason,
        run_dir=end.run_dir,
        summary=end.summary,
        history=read_history(end.run_dir),
    )


def _run(command: RunCommand, shown: Progress, heard: _Heard) -> RunEnd:
    try:
        end = run_locally(command, shown, heard.hear)
    except (PacelineError, KeyboardInterrupt) as error:
        heard.broke_off(str(error) or "interrupted")
        raise
    if command.json_file:
        write_json(command.json_file, end.summary)
    for line in last_lines(end):
        shown.note(line)
    heard.end(end)
    return end


def _with_job(job: object, settings: dict[str, Any]) -> dict[str, Any]:
    if job is None:
        return settings
    given = {"job": spec_of(job, JOBS), **settings}
    if isinstance(job, Job) and job.data is not None:
        given.setdefault("data", job.data)
    return given


class _Heard:
    """Hands on what is heard of a run, and keeps what its result needs.

    Raises:
        UsageError: a callback is none.
    """

    def __init__(self, callbacks: Sequence[Callback], say: Callable[[str], None]) -> None:
        self._say = say
        self._run_dir = ""
        self._listeners = Listeners(callbacks, self._report)

    def hear(self, event: Event) -> None:
        if isinstance(event, StartEvent):
            self._run_dir = event.run_dir
        self._listeners.post(event)

    def end(self, end: RunEnd) -> None:
        event = EndEvent(outcome=end.outcome, reason=end.reason, run_dir=str(end.run_dir), summary=end.summary)
        self._listeners.post(event)
        self._listeners.close()

    def broke_off(self, reason: str) -> None:
        if self._run_dir:
            self._listeners.post(EndEvent(outcome="failed", reason=reason, run_dir=self._run_dir, summary={}))
        self._listeners.close()

    def _report(self, line: str, traceback_text: str) -> None:
        self._say(traceback_text + line)


def _say(text: str) -> None:
    """Say what must be heard where nothing else is shown."""
    sys.stderr.write(f"{text}\n")
