"""What a simulated worker is, and what surrounds its processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from paceline.coordination.ids import PushId, SessionId
from paceline.laws import Law
from paceline.simulation.clock import Clock
from paceline.simulation.faultbook import FaultBook
from paceline.simulation.held import HeldLease
from paceline.simulation.network import Network

if TYPE_CHECKING:
    from paceline.simulation.worker import Process


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedWorker:
    """One worker of a simulated run; times in seconds.

    Attributes:
        task_s: a law; the times of its tasks one after another, begun again at the end; or a function that gives
            the next one.
        push_s, pull_s: of a contribution and of a version; 0: both travel inside session messages.
        joins_at_s: when its process starts; `ready_s`: from its welcome until it is ready.
        micro_steps: of a task, at whose ends a cancel takes effect; 0: at once, as in the papers' tables.
        duplicates: it says every report and offers every push twice.
    """

    name: str
    task_s: Law | tuple[float, ...] | Callable[[], float]
    push_s: float = 0.0
    pull_s: float = 0.0
    joins_at_s: float = 0.0
    ready_s: float = 0.0
    micro_steps: int = 0
    duplicates: bool = False
    device: str = "cpu"

    def source(self, rng: np.random.Generator) -> Callable[[], float]:
        """Give the function that tells the next task's seconds."""
        if isinstance(self.task_s, Law):
            law = self.task_s
            return lambda: law.draw(rng)
        if callable(self.task_s):
            return self.task_s
        times, started = self.task_s, iter(range(1 << 62))
        return lambda: times[next(started) % len(times)]


class PushDesk(Protocol):
    """Where processes bring their contributions."""

    def offer(self, process: Process, held: HeldLease) -> PushId:
        """Announce a push by its manifest."""
        ...

    def deliver(self, push: PushId) -> None:
        """All bytes of a push have been sent."""
        ...

    def withdraw(self, push: PushId) -> None:
        """Break off a push."""
        ...


class Surroundings(Protocol):
    """What surrounds a process."""

    heartbeat_s: float | None
    reconnect_s: float
    samples: int

    @property
    def clock(self) -> Clock:
        """The virtual clock."""
        ...

    @property
    def network(self) -> Network:
        """Its connections."""
        ...

    @property
    def pushes(self) -> PushDesk:
        """Where it brings its contributions."""
        ...

    @property
    def faults(self) -> FaultBook:
        """What goes wrong with its tasks."""
        ...

    def connect(self, process: Process) -> SessionId:
        """Open a session."""
        ...

    def gone(self, process: Process) -> None:
        """The process has ended; its connections close."""
        ...

    def current(self, version: int) -> bool:
        """Tell whether the server still has this version."""
        ...
