"""`paceline run`: a server and N workers as child processes on this machine, watched until the run is over.

The server is started first and builds the job; a mistake in it is said once, before any worker is told anything. The
workers start beside it (most of a start is importing torch) and wait for the server's address.
"""

from __future__ import annotations

import json
import os
import queue
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from paceline.callbacks import Event, from_document
from paceline.cli.commands import RunCommand
from paceline.cli.exit_codes import of_run
from paceline.cli.json_file import check_writable, write_json
from paceline.cli.processes import Child, Report, describe_exit
from paceline.cli.progress import Progress, make_progress
from paceline.errors import (
    CheckpointError,
    JobImportError,
    NothingToResume,
    PacelineError,
    RefusedError,
    RunFailedError,
    SettingsError,
    TryAgainError,
    UnavailableError,
    UsageError,
)

# What the workers of a run are told, and their number.
OF_WORKERS = {"workers", "pace", "delay", "delay_seed", "loaders", "loader_limit_s", "cache", "cache_bytes"}
LOOPBACK = "127.0.0.1:0"
POLL_S = 0.1
# A server that did not answer is asked again after this.
ASK_AGAIN_S = 0.5
# After the server's end workers have this long to leave by themselves.
LEAVE_S = 5.0

_ERRORS: dict[int, type[PacelineError]] = {
    kind.exit_code: kind
    for kind in (
        NothingToResume,
        CheckpointError,
        UsageError,
        SettingsError,
        RefusedError,
        UnavailableError,
        TryAgainError,
        RunFailedError,
    )
}


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a run ended.

    Attributes:
        summary: the document of `--json`.
        signal: the one that ended it, 0 for none.
        try_again: see `coordination.effects.Finish`.
    """

    outcome: str
    reason: str
    summary: dict[str, Any]
    run_dir: Path
    signal: int = 0
    try_again: bool = False

    @property
    def exit_code(self) -> int:
        """Say what a process exits with."""
        return 128 + self.signal if self.signal else of_run(self.outcome, try_again=self.try_again)


def run_and_report(command: RunCommand) -> int:
    """Run, write the summary, and say on standard output how it ended."""
    if command.json_file:
        check_writable(command.json_file)
    end = run_locally(command, make_progress(Console(stderr=True)))
    if command.json_file:
        write_json(command.json_file, end.summary)
    stream = sys.stdout if end.outcome == "done" else sys.stderr
    stream.writelines(f"paceline: {line}\n" for line in last_lines(end))
    return end.exit_code


def last_lines(end: RunEnd) -> list[str]:
    """Say how a run ended and what it left behind."""
    summary = end.summary
    parts = [f"{summary['rounds']} rounds in {summary['wall_s']:.1f} s", f"{summary['worker_s']:.1f} worker seconds"]
    parts += [f"{name} {value:.4g}" for name, value in summary["metrics"].items() if value is not None]
    lines = [f"{end.outcome}: {end.reason}", ", ".join(parts)]
    if summary["model"]:
        lines.append(f"model {summary['model']}, fingerprint {summary['fingerprint']}")
    lines.append(f"run directory {end.run_dir}")
    if end.outcome != "done" and summary["checkpoint"]:
        lines.append(
            f"to go on from round {summary['checkpoint']}: paceline run --resume {shlex.quote(str(end.run_dir))}"
        )
    return lines


def run_locally(command: RunCommand, progress: Progress, told: Callable[[Event], None] | None = None) -> RunEnd:
    """Run a job with local workers to its end; no process outlives the call.

    Args:
        told: is given what happens, but for the end, on a thread of its own; None: nobody asks.

    Raises:
        PacelineError: the run could not start, or its server broke down.
    """
    try:
        with _Signals() as signals:
            return _LocalRun(command, progress, signals, told).run()
    finally:
        progress.close()


class _Signals:
    """Counts SIGINT and SIGTERM instead of raising, so that ending in order cannot be torn apart half way."""

    def __init__(self) -> None:
        self.count = 0
        self.last = 0

    def __enter__(self) -> _Signals:
        # Signals are the main thread's: a run that another one asked for is ended by its caller's end.
        ours = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
        self._before = {number: signal.signal(number, self._note) for number in ours}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.count += 1
        self.last = number


class _LocalRun:
    def __init__(
        self,
        command: RunCommand,
        progress: Progress,
        signals: _Signals,
        told: Callable[[Event], None] | None,
    ) -> None:
        self._command = command
        self._told = told
        self._progress = progress
        self._signals = signals
        self._signals_seen = 0
        self._state = ""
        self._began = False
        self._failed: list[str] = []
        self._gave_up = ""

    def run(self) -> RunEnd:
        # A resumed run may have been served to others; here it is this machine's alone.
        alone: dict[str, Any] = {"bind": LOOPBACK, "insecure": False, "tls_dir": None, "tokens": None}
        settings = self._command.run_settings(**alone, min_workers=self._command.workers)
        loaders, cores = (self._command.loaders or 0) * self._command.workers, os.cpu_count() or 1
        if loaders > cores:
            self._progress.note(f"{loaders} loaders on a machine of {cores} cores: they get in each other's way")
        with self._children() as (server, workers):
            resume = self._command.resume
            told = {
                "settings": settings.model_dump(mode="json"),
                "resume": None if resume is None else str(resume),
                "tell": self._told is not None,
            }
            server.tell(json.dumps(told))
            address = self._wait_for_start(server)
            self._progress.note(f"server at {address}; look at it with: paceline status {address}")
            self._progress.note(f"add a worker to it with: {_more_workers(self._command, address)}")
            for worker, own in zip(workers, self._command.worker_settings(address), strict=True):
                worker.tell(own.model_dump_json())
            ended = self._watch(server, workers, address)
            self._let_leave(workers)
        outcome, reason = ended["outcome"], ended["reason"]
        if self._gave_up:
            outcome, reason = "failed", self._gave_up
        summary = {**ended["summary"], "outcome": outcome, "reason": reason}
        stopped_by = self._signals.last if outcome == "stopped" else 0
        return RunEnd(outcome, reason, summary, Path(ended["run_dir"]), stopped_by, ended["try_again"])

    @contextmanager
    def _children(self) -> Iterator[tuple[Child, list[Child]]]:
        children: list[Child] = []
        try:
            server = Child("server", "server", self._progress.note, self._tell)
            children.append(server)
            for name in self._command.worker_names():
                child = Child("worker", name, partial(self._pass_on, name))
                children.append(child)
            yield server, children[1:]
        finally:
            for child in reversed(children):
                child.end()

    def _tell(self, document: Report) -> None:
        if self._told is not None:
            self._told(from_document(document))

    def _pass_on(self, name: str, line: str) -> None:
        self._progress.note(f"{name}: {line}")

    def _wait_for_start(self, server: Child) -> str:
        while True:
            report = self._next_report(server)
            if self._signals.count:
                raise KeyboardInterrupt  # There is no state yet that could be saved.
            if report is None:
                continue
            if "started" in report:
                started = report["started"]
                self._note_workers(Path(started["run_dir"]))
                for note in started["notes"]:
                    self._progress.note(f"server: {note}")
                return str(started["address"])
            raise _error_of(report)

    def _note_workers(self, run_dir: Path) -> None:
        """Keep what the workers are told, so that --resume need not be told again."""
        from paceline.server.rundir import WORKERS, write_whole

        own = self._command.model_dump(mode="json", include=OF_WORKERS)
        try:
            write_whole(run_dir / WORKERS, json.dumps(own, indent=2) + "\n")
        except OSError as error:
            self._progress.note(f"{str(run_dir / WORKERS)!r} could not be written: {error.strerror}")

    def _watch(self, server: Child, workers: list[Child], address: str) -> dict[str, Any]:
        alive = list(workers)
        ask_at = 0.0
        while True:
            report = self._next_report(server)
            if report is not None:
                if "ended" in report:
                    return dict(report["ended"])
                raise _error_of(report)
            self._pass_signals_on(server)
            ended = [worker for worker in alive if worker.poll() is not None]
            alive = [worker for worker in alive if worker not in ended]
            for worker in ended:
                self._tell_of(worker)
            # What the end of a worker means depends on how far the run is now, not a few seconds ago.
            if ended or time.monotonic() >= ask_at:
                self._ask(address)
                self._consider(alive, server)
                ask_at = time.monotonic() + (self._progress.every_s if self._state else ASK_AGAIN_S)

    def _ask(self, address: str) -> None:
        from paceline.server.status import fetch_status, status_to_dict

        try:
            response = fetch_status(address, timeout_s=2.0)
        except UnavailableError:
            self._state = ""  # It is ending, or busy; its reports tell which.
        else:
            self._state = response.state
            self._began = self._began or response.state == "training" or response.version > 0
            self._progress.show(status_to_dict(response))

    def _next_report(self, server: Child) -> Report | None:
        """Wait a moment for the server's next report.

        Raises:
            RunFailedError: it has ended without one.
        """
        try:
            return server.reports.get(timeout=POLL_S)
        except queue.Empty:
            pass
        code = server.poll()
        if code is None:
            return None
        try:
            # Its last words may have come between the two looks.
            return server.reports.get(timeout=1.0)
        except queue.Empty:
            if self._signals.count:
                raise KeyboardInterrupt from None
            raise RunFailedError(f"the server ended without a word ({describe_exit(code)})") from None

    def _tell_of(self, worker: Child) -> None:
        """Say that a worker ended badly, with what it said last."""
        code = worker.poll()
        # Told to stop with the run, a worker leaves with "try again": nothing went wrong.
        if code and code != TryAgainError.exit_code:
            self._failed.append(f"worker {worker.name} ended: {describe_exit(code)}")
            self._progress.note("\n".join([self._failed[-1], *worker.last_words()]))

    def _consider(self, alive: list[Child], server: Child) -> None:
        """Give up where the run cannot go on; what the server could not be asked about is asked again."""
        if self._failed and self._state == "waiting" and not self._began:
            self._give_up(server, f"{self._failed[0]}, before round 1; the run needs all its workers to begin")
        if not alive and self._state in ("waiting", "training"):
            self._give_up(server, "every worker has ended")

    def _give_up(self, server: Child, reason: str) -> None:
        if not self._gave_up:
            self._gave_up = reason
            server.interrupt()

    def _pass_signals_on(self, server: Child) -> None:
        if self._signals.count == self._signals_seen:
            return
        self._signals_seen = self._signals.count
        if self._signals_seen == 1:
            self._progress.note("stopping: the server saves its state (once more to quit at once)")
            server.interrupt()
        else:
            server.send(signal.SIGKILL)

    def _let_leave(self, workers: list[Child]) -> None:
        deadline = time.monotonic() + LEAVE_S
        for worker in workers:
            worker.wait(max(0.0, deadline - time.monotonic()))


def _more_workers(command: RunCommand, address: str) -> str:
    """Say how one more worker of this machine joins."""
    data = [] if command.data is None else ["--data", str(command.data)]
    return shlex.join(["paceline", "worker", address, command.job, *data])


def _error_of(report: Report) -> PacelineError:
    """Make the error again that the server's process reported."""
    said = report["error"]
    if said["exit_code"] == UsageError.exit_code and said["traceback"]:
        return JobImportError(said["message"], said["traceback"])
    if said["traceback"]:
        sys.stderr.write(said["traceback"])
    return _ERRORS.get(said["exit_code"], PacelineError)(said["message"])
