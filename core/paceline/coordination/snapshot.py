"""What people may see of the coordinator: copied out, never shared."""

from __future__ import annotations

from dataclasses import dataclass

from paceline.coordination.ids import WorkerName

AWAY = frozenset(("away", "lost", "left"))
"""In these states a worker has no session."""

WAITS_MUCH = 0.1
"""From this share of its time on people are told that a worker waits for data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSnapshot:
    """One worker as `paceline status` shows it.

    Attributes:
        state: joining, free, busy, paused, draining, aside, away, lost or left.
        tasks_done, busy_s: its statistics, K_i and T_i.
        mean_task_s, radius_s: learned seconds per task and ata-empirical's confidence radius; None while not learned.
        allocation: tasks in the round in progress.
        note: why it gets no tasks at present; empty: it may get some.
    """

    name: WorkerName
    state: str
    device: str
    address: str
    tasks_done: int
    busy_s: float
    mean_task_s: float | None
    radius_s: float | None
    allocation: int
    pace: float | None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The run as `paceline status` shows it.

    Attributes:
        state: waiting, training, done, failed or stopped.
        situation: what it waits for, in words.
        round: the round in progress, 1-based; version: updates made.
        reason: of the last decision, in words.
    """

    state: str
    situation: str
    round: int
    version: int
    reason: str
    workers: tuple[WorkerSnapshot, ...]
