"""Runs a worker as a process: signals, words for people, and exit codes."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import signal
import sys
import traceback
from collections.abc import Iterator
from types import FrameType

import torch

from paceline.access import read_access
from paceline.errors import JobImportError, PacelineError, SettingsError
from paceline.loading import load_job
from paceline.log_format import logs_json
from paceline.protos.memory import tune_malloc
from paceline.settings import WorkerSettings
from paceline.worker.daemon import Worker
from paceline.worker.device import find_device
from paceline.worker.follower import Follower
from paceline.worker.names import claim_default_name
from paceline.worker.team import Place, Team, place_of

_BUG = 70
_LOOPBACK = re.compile(r"(localhost|127(\.\d+){3}|\[::1\]):\d+")


class _Quit(BaseException):
    """A signal ends the process now. No Exception, so that no job's code catches it."""

    def __init__(self, exit_code: int, note: str) -> None:
        super().__init__(note)
        self.exit_code = exit_code
        self.note = note


def run_worker(settings: WorkerSettings) -> int:
    """Run a worker until its run is over; blocks. To be called in the main thread.

    SIGTERM drains: the present task is finished, what there is is pushed, then it leaves; a second one quits at once,
    as does SIGINT. Standard error tells people, in one line each, what goes on.

    Returns:
        The exit code: 0 done or drained; 1 the run failed; 2 usage; 69 server unreachable; 70 bug; 75 the run
        was stopped; 77 refused; 78 bad settings; 130 and 143 after signals.
    """
    tune_malloc()
    try:
        place = place_of(os.environ)
        if place is not None and place.rank:
            return _follow(settings, place)
        with contextlib.ExitStack() as stack:
            name = settings.name or stack.enter_context(claim_default_name()).name
            return _run(settings, name, place)
    except _Quit as quit_:
        _say(quit_.note)
        return quit_.exit_code
    except JobImportError as error:
        sys.stderr.write(error.traceback_text)
        sys.stderr.flush()
        _say(str(error), "error")
        return error.exit_code
    except PacelineError as error:
        if error.exit_code == _BUG:
            return _bug()
        _say(str(error), "error")
        return error.exit_code
    except Exception:
        return _bug()


def _run(settings: WorkerSettings, name: str, place: Place | None) -> int:
    access = read_access(settings.tls_dir, settings.token_file)
    if access.token and access.tls is None and not _LOOPBACK.fullmatch(settings.server):
        _say(f"the token goes to {settings.server} unencrypted: who is on the way can take it (no --tls-dir)")
    job = load_job(settings.job, settings.data)
    if place is None:
        device, team = find_device(settings.device), None
    else:
        settings, device = _of_rank(settings, place)
        team = Team(place, device)
    worker = Worker(settings, job, device, name, _say, access, team)
    with _signals(worker):
        ending = worker.run()
    if team is not None:
        team.close()
    _say(f"{ending}; done: {worker.tasks_done} tasks, {worker.work_s:.1f} s of work")
    return 0


def _follow(settings: WorkerSettings, place: Place) -> int:
    job = load_job(settings.job, settings.data)
    settings, device = _of_rank(settings, place)
    team = Team(place, device)
    Follower(settings, job, device, team, _say).run()
    team.close()
    return 0


def _of_rank(settings: WorkerSettings, place: Place) -> tuple[WorkerSettings, torch.device]:
    """Give what one of several processes is told, and its device."""
    if settings.device.startswith("cuda:"):
        raise SettingsError(f"device is {settings.device!r} for {place.size} processes: expected auto, cuda or cpu")
    device = find_device(settings.device)
    if device.type == "cuda":
        device = find_device(f"cuda:{place.rank}")
    # Which tasks a process will draw is not known before it does, so nothing can be loaded ahead.
    if settings.loaders:
        raise SettingsError(f"loaders is {settings.loaders} for {place.size} processes: expected 0, or none said")
    return settings.model_copy(update={"loaders": 0}), device


@contextlib.contextmanager
def _signals(worker: Worker) -> Iterator[None]:
    draining = False

    def terminate(number: int, frame: FrameType | None) -> None:
        nonlocal draining
        if draining:
            raise _Quit(143, "told again to end: quits at once")
        draining = True
        if not worker.ready:
            raise _Quit(0, "told to end before it had joined")
        _say("draining: finishes its task, pushes what it has and leaves")
        worker.drain()

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise _Quit(130, "interrupted: quits at once; its unfinished tasks go to other workers")

    before = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, terminate),
        signal.SIGINT: signal.signal(signal.SIGINT, interrupt),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _bug() -> int:
    traceback.print_exc()
    sys.stderr.flush()
    _say("this is a bug in paceline; the traceback above belongs into a report", "error")
    return _BUG


def _say(text: str, level: str = "info") -> None:
    line = f"paceline worker: {text}"
    if logs_json(sys.stderr):
        line = json.dumps({"event": text, "level": level, "timestamp": datetime.datetime.now(datetime.UTC).isoformat()})
    # In one piece, so that the lines of several workers on one terminal do not mix; and safe in a signal handler.
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode())
