"""The sums of a run, kept up at every commit: what metrics, the summary and status all read.

An observer of the machine's effects, owned by the server's event loop; it holds no lock and does no I/O. Its memory
grows by 16 bytes a round (two doubles, for the loss curve and the median) and by one small object per worker name.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from paceline.coordination.effects import Effect, JudgeVersion, LeaseRecord, RefusePush, RoundRecord, WorkerRecord
from paceline.coordination.events import Rejection
from paceline.coordination.ids import WorkerName
from paceline.coordination.state import NAMES_KEPT
from paceline.round_sums import MOST_SUMS

# Sums of further names go into one.
OTHER = "other"
# Upper bounds of the histogram of round seconds: from rounds of a toy model to rounds of a large one over a slow line.
ROUND_BUCKETS_S = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
# Upper bounds of the histogram of staleness, in versions.
STALENESS_BUCKETS = (0, 1, 2, 4, 8, 16, 32, 64)


@dataclass(slots=True)
class WorkerTotals:
    """One worker's sums over the committed rounds; see `effects.WorkerRecord` for the meanings."""

    planned: int = 0
    used: int = 0
    wasted: int = 0
    replanned: int = 0
    used_s: float = 0.0
    wasted_s: float = 0.0
    idle_s: float = 0.0
    data_s: float = 0.0

    def add(self, other: WorkerTotals | WorkerRecord) -> None:
        """Add another's sums, or a round's."""
        self.planned += other.planned
        self.used += other.used
        self.wasted += other.wasted
        self.replanned += other.replanned
        self.used_s += other.used_s
        self.wasted_s += other.wasted_s
        self.idle_s += other.idle_s
        self.data_s += other.data_s

    @property
    def worker_s(self) -> float:
        """Worker seconds, used or wasted: the bill."""
        return self.used_s + self.wasted_s

    def cost(self, price: float) -> float:
        """Give what they cost, at a price of an hour."""
        return price * self.worker_s / 3600.0

    @property
    def data_share(self) -> float:
        """Of the seconds of applied tasks, the share of waiting for samples."""
        return self.data_s / self.used_s if self.used_s > 0.0 else 0.0


def price_of(prices: Mapping[str, float] | None, name: str) -> float | None:
    """Give the price of an hour of a worker; "*" is that of all others, see settings.RunSettings.price."""
    return None if prices is None else prices.get(name, prices.get("*"))


@dataclass(slots=True)
class Staleness:
    """How many versions behind the applied tasks were computed.

    Attributes:
        tasks: that were applied; versions: the sum of their staleness; most: the largest.
        buckets: tasks by staleness, one count per bound of STALENESS_BUCKETS and one for all above.
    """

    tasks: int = 0
    versions: int = 0
    most: int = 0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(STALENESS_BUCKETS) + 1))

    def add(self, record: LeaseRecord) -> None:
        """Take the applied tasks of a lease into account."""
        behind, tasks = record.round - 1 - record.version, len(record.kept)
        if tasks:
            self.tasks += tasks
            self.versions += behind * tasks
            self.most = max(self.most, behind)
            self.buckets[bisect_left(STALENESS_BUCKETS, behind)] += tasks

    @property
    def mean(self) -> float:
        """In versions, by task."""
        return self.versions / self.tasks if self.tasks else 0.0


@dataclass(slots=True)
class ValidationTotals:
    """What workers did to measure versions.

    Attributes:
        tasks: that they did for it, worker_s: the seconds of these, and seconds: those for which rounds waited.
    """

    tasks: int = 0
    worker_s: float = 0.0
    seconds: float = 0.0

    def add(self, effect: JudgeVersion) -> None:
        """Take a measured version into account."""
        self.tasks += effect.tasks
        self.worker_s += effect.worker_s
        self.seconds += effect.seconds


@dataclass(slots=True)
class Saves:
    """The run's checkpoints.

    Attributes:
        version: of the newest, 0: there is none.
        at_s: when it was saved, on the server's clock; None: in an earlier life.
        seconds: from the order to the disk, of the latest.
        saved, failed: how many were, and could not be.
    """

    version: int = 0
    at_s: float | None = None
    seconds: float = 0.0
    saved: int = 0
    failed: int = 0


@dataclass(slots=True)
class Totals:
    """Sums over the committed rounds, those of earlier lives of the server included.

    Attributes:
        rounds: committed; version: of the model, updates made.
        first_opened_s, last_closed_s: when this life's first round was planned and the latest version was made.
        earlier_s: training seconds of earlier lives.
        means: of the job's further sums by name, by round; NaN where one was not given.
        losses, seconds: by round; round_s is the sum of the seconds.
        workers: by name, in the order in which they first appeared in a round.
        rejected: contributions that were not taken, by reason.
        skipped: updates whose sum was not finite, so that the loss scale was made smaller instead.
        validation: of the tasks by which workers measured versions.
        saves: checkpoints.
        round_buckets: rounds by seconds, one count per bound of ROUND_BUCKETS_S and one for all above.
    """

    rounds: int = 0
    version: int = 0
    skipped: int = 0
    first_opened_s: float | None = None
    last_closed_s: float = 0.0
    earlier_s: float = 0.0
    losses: array[float] = field(default_factory=lambda: array("d"))
    means: dict[str, array[float]] = field(default_factory=dict)
    round_s: float = 0.0
    seconds: array[float] = field(default_factory=lambda: array("d"))
    sum: WorkerTotals = field(default_factory=WorkerTotals)
    workers: dict[WorkerName, WorkerTotals] = field(default_factory=dict)
    rejected: dict[Rejection, int] = field(default_factory=lambda: dict.fromkeys(Rejection, 0))
    round_buckets: list[int] = field(default_factory=lambda: [0] * (len(ROUND_BUCKETS_S) + 1))
    staleness: Staleness = field(default_factory=Staleness)
    validation: ValidationTotals = field(default_factory=ValidationTotals)
    saves: Saves = field(default_factory=Saves)

    def observe(self, effect: Effect) -> None:
        """Take one effect into account."""
        if isinstance(effect, RoundRecord):
            self._add_round(effect)
        elif isinstance(effect, LeaseRecord):
            self.staleness.add(effect)
        elif isinstance(effect, JudgeVersion):
            self.validation.add(effect)
        elif isinstance(effect, RefusePush):
            self.rejected[effect.rejection] += 1

    @property
    def worker_s(self) -> float:
        """Worker seconds in all, used or wasted: the bill."""
        return self.sum.worker_s

    def cost(self, prices: Mapping[str, float] | None) -> float | None:
        """Give the price of all worker seconds, validation left aside, at prices of an hour by name.

        Returns:
            None where no worker of it has a price.
        """
        known = [(sums, price_of(prices, name)) for name, sums in self.workers.items()]
        paid = [sums.cost(price) for sums, price in known if price is not None]
        return sum(paid) if paid else None

    @property
    def training_s(self) -> float:
        """From the planning of the first round to the latest version, less the time without a server."""
        return self.earlier_s + (0.0 if self.first_opened_s is None else self.last_closed_s - self.first_opened_s)

    def state(self) -> dict[str, Any]:
        """Give all sums, for a checkpoint: a copy, of dicts, numbers and tensors."""
        return {
            "version": self.version,
            "skipped": self.skipped,
            "training_s": self.training_s,
            "losses": torch.from_numpy(np.array(self.losses)),
            "seconds": torch.from_numpy(np.array(self.seconds)),
            "means": {name: torch.from_numpy(np.array(values)) for name, values in self.means.items()},
            "round_s": self.round_s,
            "round_buckets": list(self.round_buckets),
            "workers": {str(name): asdict(sums) for name, sums in self.workers.items()},
            "sum": asdict(self.sum),
            "rejected": {reason.value: count for reason, count in self.rejected.items()},
            "staleness": asdict(self.staleness),
            "validation": asdict(self.validation),
            "saves": {"saved": self.saves.saved, "failed": self.saves.failed},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.version, self.rounds = state["version"], len(state["losses"])
        self.skipped = state["skipped"]
        self.earlier_s = state["training_s"]
        self.losses, self.seconds = (array("d", state[name].numpy().tobytes()) for name in ("losses", "seconds"))
        self.means = {name: array("d", values.numpy().tobytes()) for name, values in state["means"].items()}
        self.round_s, self.round_buckets = state["round_s"], list(state["round_buckets"])
        self.workers = {WorkerName(name): WorkerTotals(**sums) for name, sums in state["workers"].items()}
        self.sum = WorkerTotals(**state["sum"])
        self.rejected |= {Rejection(reason): count for reason, count in state["rejected"].items()}
        self.staleness = Staleness(**state["staleness"])
        self.validation = ValidationTotals(**state["validation"])
        # The checkpoint that this comes from was saved after it was taken.
        self.saves = Saves(version=self.version, saved=state["saves"]["saved"] + 1, failed=state["saves"]["failed"])

    @property
    def latest_means(self) -> dict[str, float]:
        """Of the latest round."""
        return {name: values[-1] for name, values in self.means.items() if math.isfinite(values[-1])}

    def _add_means(self, given: Mapping[str, float]) -> None:
        for name in given.keys() - self.means.keys():
            if len(self.means) < MOST_SUMS:
                self.means[name] = array("d", [math.nan] * len(self.losses))
        for name, values in self.means.items():
            values.append(given.get(name, math.nan))

    def _add_round(self, record: RoundRecord) -> None:
        self.rounds += 1
        self.version = record.version
        self.skipped += record.skipped
        if self.first_opened_s is None:
            self.first_opened_s = record.opened_s
        self.last_closed_s = record.opened_s + record.seconds
        self._add_means(dict(record.means))
        self.losses.append(record.loss)
        self.seconds.append(record.seconds)
        self.round_s += record.seconds
        self.round_buckets[bisect_left(ROUND_BUCKETS_S, record.seconds)] += 1
        for worker in record.workers:
            mine = self.workers.get(worker.name)
            if mine is None:
                name = worker.name if len(self.workers) < NAMES_KEPT else WorkerName(OTHER)
                mine = self.workers.setdefault(name, WorkerTotals())
            mine.add(worker)
            self.sum.add(worker)
