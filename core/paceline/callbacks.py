"""What a user may hear of a run while it goes on: a Callback, and the events that it is given.

Callbacks are called one after another in a thread of their own, on the machine of the server (of the caller, for those
given to `paceline.api.train`): a slow one holds up no round, and one that raises is told of and switched off.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class RunInfo:
    """Which run it is.

    Attributes:
        settings: of the run, as settings.json has them.
        round: that it goes on from; 0: it begins.
    """

    run_dir: Path
    job: str
    settings: Mapping[str, Any]
    round: int = 0


@dataclass(frozen=True, slots=True)
class WorkerShare:
    """What one worker did in a round.

    Attributes:
        tasks: of it that entered the update.
        used_s, wasted_s: its seconds of tasks that entered the update, and of all others.
        idle_s: from its last contribution to the close of the round.
        data_s: of used_s, the seconds of waiting for samples.
    """

    name: str
    tasks: int
    used_s: float
    wasted_s: float
    idle_s: float
    data_s: float


@dataclass(frozen=True, slots=True)
class RoundEvent:
    """A committed round.

    Attributes:
        round: 1-based; its update made this version of the model.
        loss: mean over the round's samples.
        seconds: from its plan to its new version.
        elapsed_s: since the server began.
        samples, tasks: that entered the update.
        worker_s, wasted_s: seconds of all workers; of them those that entered no update.
        means: of the further sums that the job's loss gives.
    """

    round: int
    loss: float
    seconds: float
    elapsed_s: float
    samples: int
    tasks: int
    worker_s: float
    wasted_s: float
    workers: tuple[WorkerShare, ...]
    means: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EvaluationEvent:
    """A version that was measured."""

    round: int
    metrics: Mapping[str, float]
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class WorkerEvent:
    """A worker that came, left, or whose state changed; `reason` says why in words."""

    name: str
    state: str
    reason: str
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class EndEvent:
    """How the run ended: done, failed or stopped; `summary` is the document of `paceline run --json`."""

    outcome: str
    reason: str
    summary: Mapping[str, Any]


Event = RoundEvent | EvaluationEvent | WorkerEvent | EndEvent


class Callback:
    """Hears of a run; override what is of interest."""

    def on_start(self, run: RunInfo) -> None:
        """Workers may come."""

    def on_round(self, event: RoundEvent) -> None:
        """A round is committed. Where a callback is much slower than the rounds, it is not given each of them."""

    def on_evaluation(self, event: EvaluationEvent) -> None:
        """A version was measured."""

    def on_worker(self, event: WorkerEvent) -> None:
        """A worker came, left, or changed."""

    def on_end(self, event: EndEvent) -> None:
        """The run is over; called last."""


def tell(callback: Callback, event: Event | RunInfo) -> None:
    """Call the method for an event."""
    match event:
        case RunInfo():
            callback.on_start(event)
        case RoundEvent():
            callback.on_round(event)
        case EvaluationEvent():
            callback.on_evaluation(event)
        case WorkerEvent():
            callback.on_worker(event)
        case EndEvent():
            callback.on_end(event)


_KINDS: dict[str, type[Any]] = {
    kind.__name__: kind for kind in (RunInfo, RoundEvent, EvaluationEvent, WorkerEvent, EndEvent)
}


def to_document(event: Event | RunInfo) -> dict[str, Any]:
    """Give an event as values that JSON can say."""
    document = {name.name: getattr(event, name.name) for name in dataclasses.fields(event)}
    if isinstance(event, RoundEvent):
        document["workers"] = [dataclasses.asdict(worker) for worker in event.workers]
    if isinstance(event, RunInfo):
        document["run_dir"] = str(event.run_dir)
    return {"kind": type(event).__name__, **document}


def from_document(document: Mapping[str, Any]) -> Event | RunInfo:
    """Make an event of what `to_document` gave."""
    content = {name: value for name, value in document.items() if name != "kind"}
    if "workers" in content:
        content["workers"] = tuple(WorkerShare(**worker) for worker in content["workers"])
    if "run_dir" in content:
        content["run_dir"] = Path(content["run_dir"])
    event: Event | RunInfo = _KINDS[document["kind"]](**content)
    return event


_COLUMNS: tuple[str, ...] = ("round", "loss", "seconds", "elapsed_s", "samples", "tasks", "worker_s", "wasted_s")


@dataclass(slots=True)
class History(Callback):
    """Collects a run's rounds and evaluations as columns of equal length.

    Attributes:
        rounds: round, loss, seconds, elapsed_s, samples, tasks, worker_s and wasted_s of each committed round.
        evaluations: round, elapsed_s and the metrics of each measured version; NaN where one was not measured.
    """

    rounds: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in _COLUMNS})
    evaluations: dict[str, list[float]] = field(default_factory=lambda: {"round": [], "elapsed_s": []})

    def on_round(self, event: RoundEvent) -> None:
        """See Callback."""
        for name in _COLUMNS:
            self.rounds[name].append(getattr(event, name))

    def on_evaluation(self, event: EvaluationEvent) -> None:
        """See Callback."""
        before = len(self.evaluations["round"])
        row = {"round": event.round, "elapsed_s": event.elapsed_s, **event.metrics}
        for name in row.keys() - self.evaluations.keys():
            self.evaluations[name] = [float("nan")] * before
        for name, column in self.evaluations.items():
            column.append(row.get(name, float("nan")))
