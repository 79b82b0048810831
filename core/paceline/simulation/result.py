"""What came out of a simulated run: the coordinator's records, and what really happened beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from paceline.coordination.effects import Finish, LeaseRecord, Refuse, RoundPlanned, RoundRecord, WorkerChanged
from paceline.coordination.events import Rejection
from paceline.coordination.ids import WorkerName
from paceline.simulation.model import SimulatedModel


class Worked(Protocol):
    """A process that has worked."""

    name: WorkerName
    busy_s: float


@dataclass(slots=True)
class SimulationResult:
    """A finished (or halted) run.

    Attributes:
        finish: how the run ended; None where it has not.
        seconds: the virtual clock at the end.
        rounds, leases, plans, changes, warnings, refused: what the coordinator recorded, in order.
        busy_s: seconds that each worker really computed, used or not, all its incarnations together.
        faults: how often each kind of fault really happened.
        rejections: pushes refused, by reason.
        events: events that the coordinator took; `pushes` that were offered; `lost_messages` on broken sessions.
    """

    model: SimulatedModel
    finish: Finish | None = None
    seconds: float = 0.0
    rounds: list[RoundRecord] = field(default_factory=list)
    leases: list[LeaseRecord] = field(default_factory=list)
    plans: list[RoundPlanned] = field(default_factory=list)
    changes: list[WorkerChanged] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    refused: list[Refuse] = field(default_factory=list)
    busy_s: dict[str, float] = field(default_factory=dict)
    faults: Counter[str] = field(default_factory=Counter)
    rejections: Counter[Rejection] = field(default_factory=Counter)
    events: int = 0
    pushes: int = 0
    lost_messages: int = 0

    @property
    def round_s(self) -> list[float]:
        """Seconds of each round, from its plan to the new version."""
        return [record.seconds for record in self.rounds]

    @property
    def used_s(self) -> float:
        """Worker seconds of tasks that were applied, as recorded."""
        return sum(worker.used_s for record in self.rounds for worker in record.workers)

    @property
    def wasted_s(self) -> float:
        """Worker seconds of all other work, as recorded."""
        return sum(worker.wasted_s for record in self.rounds for worker in record.workers)

    def end(self, now: float, processes: Sequence[Worked]) -> None:
        """Close the books."""
        self.seconds = now
        self.busy_s = {}
        for process in processes:
            self.busy_s[process.name] = self.busy_s.get(process.name, 0.0) + process.busy_s
