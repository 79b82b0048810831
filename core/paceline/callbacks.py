"""What a run tells those who listen: the events, the Callback that hears them, and the thread that calls it.

Events are plain values of names and numbers: they cross a pipe as JSON, and no callback holds a part of the server.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from paceline.errors import UsageError
from paceline.tracebacks import describe, users_traceback

# After the end of a run callbacks get so long to take what they have not heard yet: a logger may upload.
FINISH_LIMIT_S = 60.0
# Of a callback that is slower than the rounds, or hangs, so many events may wait; rounds beyond them are left out.
WAITING_EVENTS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class StartEvent:
    """Workers may come.

    Attributes:
        address: HOST:PORT of the server.
        round: the last that is made already: 0, or that of the checkpoint that the run goes on from.
        settings: all of the server's, as JSON values.
    """

    run_dir: str
    address: str
    round: int
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerShare:
    """What one worker did in a round.

    Attributes:
        planned, used, wasted: tasks.
        used_s, wasted_s, idle_s: seconds of computing that were used, that were not, and of waiting for the round.
        data_s: of used_s, the seconds of waiting for samples.
    """

    planned: int
    used: int
    wasted: int
    used_s: float
    wasted_s: float
    idle_s: float
    data_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundEvent:
    """A round is done: one update of the model.

    Attributes:
        round: 1 is the first.
        loss: mean over the round's samples, before the update.
        seconds: that the round took.
        at_s: when it closed, in seconds of this server's clock.
        tasks, samples: that were used.
        reason: why the tasks were split as they were.
        workers: by name.
        means: of the further sums that the job's loss gives, by name.
    """

    round: int
    loss: float
    seconds: float
    at_s: float
    tasks: int
    samples: int
    reason: str
    workers: Mapping[str, WorkerShare] = field(default_factory=dict)
    means: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EvaluationEvent:
    """The job's evaluate() has measured the model as it was after this round."""

    round: int
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class WorkerEvent:
    """A worker joined, came back, left, was lost, or was put aside: `state` in a word, `reason` in a line."""

    name: str
    state: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EndEvent:
    """The run is over; the model is saved, unless `summary` is empty.

    Attributes:
        outcome: done, stopped or failed.
        reason: one line.
        summary: the document of `paceline run --json`.
    """

    outcome: str
    reason: str
    run_dir: str
    summary: Mapping[str, Any]


Event = StartEvent | RoundEvent | EvaluationEvent | WorkerEvent | EndEvent


class Callback:
    """Hears how a run goes. All methods do nothing until they are overridden.

    They are called one after another in a thread of their own: training does not wait for them. One that raises is
    reported, and not called any more.
    """

    def on_start(self, event: StartEvent) -> None:
        """Hear that the run begins, or goes on."""

    def on_round(self, event: RoundEvent) -> None:
        """Hear of a round that is done."""

    def on_evaluation(self, event: EvaluationEvent) -> None:
        """Hear what evaluate() gave."""

    def on_worker(self, event: WorkerEvent) -> None:
        """Hear that a worker came or went."""

    def on_end(self, event: EndEvent) -> None:
        """Hear that the run is over."""


_METHODS: Mapping[type, str] = {
    StartEvent: "on_start",
    RoundEvent: "on_round",
    EvaluationEvent: "on_evaluation",
    WorkerEvent: "on_worker",
    EndEvent: "on_end",
}
_KINDS = {method: kind for kind, method in _METHODS.items()}


def to_document(event: Event) -> dict[str, Any]:
    """Give an event as JSON values. A loss or metric that is not finite stays what it is: Python's JSON has NaN."""
    return {"kind": _METHODS[type(event)], **asdict(event)}


def from_document(document: Mapping[str, Any]) -> Event:
    """Make the event again that `to_document` gave."""
    values = {name: value for name, value in document.items() if name != "kind"}
    kind = _KINDS[document["kind"]]
    if kind is RoundEvent:
        values["workers"] = {name: WorkerShare(**share) for name, share in values["workers"].items()}
    event: Event = kind(**values)
    return event


class Listeners:
    """Callbacks and the thread that calls them. Any thread may post.

    Args:
        callbacks: called in this order.
        report: told, in that thread, of one that raised: a line, and the traceback of its code.

    Raises:
        UsageError: one is no Callback.
    """

    def __init__(self, callbacks: Sequence[object], report: Callable[[str, str], None]) -> None:
        self._active = [checked(callback) for callback in callbacks]
        self._report = report
        self._events: SimpleQueue[Event | None] = SimpleQueue()
        self._left_out = 0
        self._thread: threading.Thread | None = None
        if self._active:
            # A daemon: a callback that hangs must not keep the process.
            self._thread = threading.Thread(target=self._work, name="callbacks", daemon=True)
            self._thread.start()

    def post(self, event: Event) -> None:
        """Have all callbacks called, soon. Rounds that find too many events waiting are left out, and counted."""
        if self._thread is None:
            return
        if isinstance(event, RoundEvent) and self._events.qsize() >= WAITING_EVENTS:
            self._left_out += 1
        else:
            self._events.put(event)

    def close(self, timeout_s: float = FINISH_LIMIT_S) -> None:
        """Wait until everything that was posted was heard; what is not by then, is never. May be called again."""
        if self._thread is None:
            return
        self._events.put(None)
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            left = self._events.qsize()
            self._report(f"callbacks have not heard {left} events {timeout_s:g} s after the end: they are let go", "")
        elif self._left_out:
            self._report(f"callbacks were slower than the rounds: {self._left_out} rounds were left out", "")
        self._thread = None

    def _work(self) -> None:
        while (event := self._events.get()) is not None:
            for callback in list(self._active):
                self._call(callback, event)

    def _call(self, callback: Callback, event: Event) -> None:
        method = _METHODS[type(event)]
        try:
            getattr(callback, method)(event)
        except (Exception, SystemExit) as error:
            self._active.remove(callback)
            name = f"{type(callback).__name__}.{method}"
            self._report(f"callback {name} raised {describe(error)}: it is called no more", users_traceback(error))


def checked(callback: object) -> Callback:
    """Give a callback back.

    Raises:
        UsageError: it is none.
    """
    if isinstance(callback, Callback):
        return callback
    if isinstance(callback, type) and issubclass(callback, Callback):
        raise UsageError(f"callback is the class {callback.__name__}: expected an object, {callback.__name__}()")
    raise UsageError(f"callback is {callback!r}: expected an object of a class derived from paceline.Callback")


def run_folder(event: StartEvent, name: str) -> Path:
    """Give a path in the run's directory, where a logger keeps what it writes."""
    return Path(event.run_dir) / name
