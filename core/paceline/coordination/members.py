"""The workers of a run, and what has been learned of each name."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum

from paceline.coordination.events import Hello
from paceline.coordination.ids import Incarnation, LeaseId, SessionId, WorkerName
from paceline.coordination.leases import Lease
from paceline.coordination.plan import Share, part_name


class Standing(Enum):
    """Where a member is in its life."""

    JOINING = "joining"
    ACTIVE = "active"
    PAUSED = "paused"
    DRAINING = "draining"


@dataclass(slots=True)
class Statistics:
    """Counters of one name on one device; they outlive incarnations.

    Attributes:
        tasks_done, busy_s: K_i and T_i.
        first_round: the first round that could give it tasks; 1 for founders.
        strikes: how often in a row it failed what others manage.
    """

    first_round: int
    tasks_done: int = 0
    busy_s: float = 0.0
    strikes: int = 0

    @property
    def founder(self) -> bool:
        """Joined before round 1 was planned."""
        return self.first_round == 1

    @property
    def mean_s(self) -> float | None:
        """Learned seconds per task."""
        return self.busy_s / self.tasks_done if self.tasks_done else None


@dataclass(slots=True)
class Claim:
    """A newcomer that claims a name in use; the holder has until `until` to answer."""

    hello: Hello
    until: float


@dataclass(slots=True, kw_only=True)
class Member:
    """One live incarnation.

    Attributes:
        session: None while its control connection is broken (since `closed_at`).
        computing_since: when its present task was begun, as far as is known; None while it computes nothing.
        heard_at, progress_at: last sign of life, and of work.
        settled: the last leases that ended by an accepted push: a repeated push is acknowledged again.
        aside_until: gets no tasks before this time.
        part: of the data, where they belong to workers; `spare`: all parts have their worker already.
        timer_at: its earliest entry in the timer heap.
    """

    name: WorkerName
    incarnation: Incarnation
    address: str
    device: str
    pace: float | None
    session: SessionId | None
    heard_at: float
    progress_at: float
    standing: Standing = Standing.JOINING
    closed_at: float | None = None
    computing_since: float | None = None
    aside_until: float = 0.0
    part: int | None = None
    spare: bool = False
    timer_at: float = math.inf
    warned: bool = False
    claim: Claim | None = None
    leases: dict[LeaseId, Lease] = field(default_factory=dict)
    settled: dict[LeaseId, None] = field(default_factory=dict)

    def available(self, now: float) -> bool:
        """May be given tasks: ready, connected, not put aside, not paused, not leaving, not spare."""
        ready = self.standing is Standing.ACTIVE and self.session is not None
        return ready and self.aside_until <= now and not self.spare

    @property
    def share(self) -> Share:
        """Whose its tasks are in a round's counts."""
        return self.name if self.part is None else part_name(self.part)

    def running_tasks(self) -> int:
        """Tasks that it has been given and has not finished."""
        return sum(len(lease.running) for lease in self.leases.values())

    def owes_progress(self) -> bool:
        """Something is to be expected of it: a task, or a push that has not begun."""
        return any(
            lease.running or (lease.push is None and (lease.in_advance or lease.phase.value != "open"))
            for lease in self.leases.values()
        )

    def settle(self, lease: LeaseId) -> None:
        """Remember an accepted lease, the last 64 of them: a worker repeats only its latest."""
        self.settled[lease] = None
        if len(self.settled) > 64:
            del self.settled[next(iter(self.settled))]
