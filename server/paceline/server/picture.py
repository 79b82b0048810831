"""The document that the page draws, live or in a report: a run as JSON values. Numbers that are not finite are null.

A live page asks every second or so and is sent what is new: it says by its cursor what it has.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from paceline.allocation import expected_rounds
from paceline.coordination.ids import WorkerName, in_order
from paceline.coordination.snapshot import AWAY, Snapshot
from paceline.server.history import History, Measured, RoundPoint, Thinned
from paceline.server.status import Situation
from paceline.server.totals import Totals, price_of
from paceline.settings import RunSettings

# A chart with more lines cannot be read.
MOST_LINES = 12
_CURSOR = re.compile(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})\.(\d{1,9})\.(\d{1,12})\.(\d{1,10})\.(\d{1,10})")


@dataclass(frozen=True, slots=True)
class Cursor:
    """What a page has: of both curves the stride and the points, the last round, whose lines it draws, of which run."""

    stride: int = 0
    points: int = 0
    measured_stride: int = 0
    measured: int = 0
    round: int = 0
    lines: int = 0
    run: int = 0

    def __str__(self) -> str:
        counts = (self.stride, self.points, self.measured_stride, self.measured, self.round)
        parts = (*counts, self.lines, self.run)
        return ".".join(map(str, parts))


START = Cursor()


def parse_cursor(text: str) -> Cursor:
    """Read what a page sent; what no page of ours would send stands for one that has nothing."""
    match = _CURSOR.fullmatch(text)
    return Cursor(*map(int, match.groups())) if match else START


class Picture:
    """Makes the documents of one run.

    Args:
        totals, history: fed by others.
        run: a number of this life of this run: what a page has of another is of no use to it.
    """

    def __init__(self, settings: RunSettings, totals: Totals, history: History, run: int = 0) -> None:
        self._run_number = run
        self._settings = settings
        self._totals = totals
        self._history = history

    def document(self, snapshot: Snapshot, situation: Situation, has: Cursor = START) -> dict[str, Any]:
        """Give the document, or what is new in it for a page that has some."""
        history = self._history
        learners = history.learners
        lines = _chosen(sorted(learners, key=in_order))
        marks = zlib.crc32("\n".join(lines).encode())
        version = self._totals.version
        if has.round > version or has.lines != marks or has.run != self._run_number:
            has = START
        since = has.points if has.stride == history.rounds.stride else 0
        measured_since = has.measured if has.measured_stride == history.measured.stride else 0
        # The last point may be one that is not complete: a page that has it gets it anew.
        points = history.curve()[since:]
        cursor = Cursor(
            history.rounds.stride,
            len(history.rounds.points),
            history.measured.stride,
            len(history.measured.points),
            version,
            marks,
            self._run_number,
        )
        return {
            "cursor": str(cursor),
            "run": self._run(situation),
            "now": self._now(snapshot, situation),
            "workers": self._workers(snapshot),
            "ways": self._ways(snapshot),
            "curve": {"since": since, **_curve(points)},
            "learned": {"workers": lines, **_learned(points, [learners.index(name) for name in lines])},
            "measured": {"since": measured_since, **_measured(history.measured, measured_since)},
            "timeline": self._timeline(has.round),
        }

    def _run(self, situation: Situation) -> dict[str, Any]:
        settings = self._settings
        shown = ("job", "policy", "seed", "tasks", "micro_batch", "sums")
        return {name: getattr(settings, name) for name in shown} | {"dir": situation.run_dir}

    def _now(self, snapshot: Snapshot, situation: Situation) -> dict[str, Any]:
        totals = self._totals
        saves = totals.saves
        return {
            "state": snapshot.state,
            "situation": snapshot.situation,
            "decision": snapshot.reason,
            "rounds": situation.rounds,
            "version": totals.version,
            "training_s": short(totals.training_s),
            "rounds_s": short(totals.round_s),
            "loss": short(totals.losses[-1]) if totals.losses else None,
            "round_s": short(totals.seconds[-1]) if totals.seconds else None,
            "metrics": {name: short(value) for name, value in sorted(situation.metrics.items())},
            "means": {name: short(value) for name, value in sorted(totals.latest_means.items())},
            "used": totals.sum.used,
            "wasted": totals.sum.wasted,
            "used_s": short(totals.sum.used_s),
            "wasted_s": short(totals.sum.wasted_s),
            "idle_s": short(totals.sum.idle_s),
            "cost": short(totals.cost(self._settings.price)),
            "rejected": sum(totals.rejected.values()),
            "checkpoint": saves.version,
            "checkpoint_age_s": None if saves.at_s is None else short(situation.elapsed_s - saves.at_s),
        }

    def _workers(self, snapshot: Snapshot) -> list[dict[str, Any]]:
        rows = []
        for worker in snapshot.workers:
            sums = self._totals.workers.get(worker.name)
            price = price_of(self._settings.price, worker.name)
            row: dict[str, Any] = {
                "name": worker.name,
                "state": worker.state,
                "device": worker.device,
                "tasks": worker.allocation,
                "mean_s": short(worker.mean_task_s),
                "radius_s": short(worker.radius_s),
            }
            if sums is not None:
                row |= {
                    "used": sums.used,
                    "wasted": sums.wasted,
                    "used_s": short(sums.used_s),
                    "wasted_s": short(sums.wasted_s),
                    "idle_s": short(sums.idle_s),
                }
                if price is not None:
                    row["cost"] = short(sums.cost(price))
            if worker.note:
                row["note"] = worker.note
            rows.append(row)
        return rows

    def _ways(self, snapshot: Snapshot) -> list[dict[str, Any]]:
        """Estimate what the same rounds would have taken by other ways to share tasks out, from learned speeds.

        Among the workers that are there; of a run that is over, among those that there were.
        """
        learned = [worker for worker in snapshot.workers if worker.mean_task_s]
        known = [worker for worker in learned if worker.state not in AWAY] or learned
        if not known or not self._totals.rounds:
            return []
        means_s = np.array([worker.mean_task_s for worker in known])
        prices = [price_of(self._settings.price, worker.name) for worker in known]
        rounds = self._totals.rounds
        ways = []
        for name, expected in expected_rounds(means_s, self._settings.tasks_of_round()).items():
            row = {
                "name": name,
                "seconds": short(rounds * expected.seconds),
                "worker_s": short(rounds * float(expected.busy_s.sum())),
            }
            if any(price is not None for price in prices):
                paid = sum((price or 0.0) * busy for price, busy in zip(prices, expected.busy_s, strict=True))
                row["cost"] = short(rounds * paid / 3600.0)
            ways.append(row)
        return ways

    def _timeline(self, after: int) -> dict[str, Any]:
        """Give the latest rounds: of each worker by its place in `workers` the seconds used, wasted and idle."""
        new = [record for record in self._history.latest if record.round > after]
        names = sorted({worker.name for record in new for worker in record.workers}, key=in_order)
        place = {name: number for number, name in enumerate(names)}
        rounds = []
        for record in new:
            bars: list[float | None] = []
            for worker in record.workers:
                bars += [place[worker.name], *(short(s, 3) for s in (worker.used_s, worker.wasted_s, worker.idle_s))]
            rounds.append([record.round, short(record.opened_s, 7), short(record.seconds), bars])
        return {"workers": names, "rounds": rounds}


def _chosen(names: Sequence[WorkerName]) -> list[WorkerName]:
    """Choose whose lines are drawn: all, or some that are evenly spread over the names."""
    if len(names) <= MOST_LINES:
        return list(names)
    return [names[place * (len(names) - 1) // (MOST_LINES - 1)] for place in range(MOST_LINES)]


def _curve(points: Sequence[RoundPoint]) -> dict[str, list[Any]]:
    return {
        "round": [point.round for point in points],
        "loss": _all_short(point.loss for point in points),
        "seconds": _all_short(point.seconds for point in points),
    }


def _learned(points: Sequence[RoundPoint], places: Sequence[int]) -> dict[str, list[list[float | None]]]:
    """Give the lines of the workers in these places; none where a worker had done nothing yet."""

    def line(place: int, column: int) -> list[float | None]:
        known = (float(p.learned[place, column]) if place < len(p.learned) else None for p in points)
        return _all_short(known)

    return {
        "mean_s": [line(place, 0) for place in places],
        "radius_s": [line(place, 1) for place in places],
    }


def _measured(measured: Thinned[Measured], since: int) -> dict[str, Any]:
    all_points = measured.points + measured.unfinished
    points = all_points[since:]
    names = sorted({name for point in all_points for name in point.metrics})
    metrics = {name: _all_short(point.metrics.get(name) for point in points) for name in names}
    return {"round": [point.round for point in points], "metrics": metrics}


def _all_short(values: Iterable[float | None]) -> list[float | None]:
    return [short(value) for value in values]


def short(value: float | None, digits: int = 4) -> float | None:
    """Give so many digits of a number: what a picture can show."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.{digits}g}")
