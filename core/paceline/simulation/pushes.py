"""Contributions on their way from the workers into the simulated model: the server's side of a push."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial

from paceline.coordination.effects import AcknowledgePush, AddContribution, RefusePush, StagePush
from paceline.coordination.events import (
    ContributionInterrupted,
    ContributionOffered,
    ContributionRejected,
    ContributionVerified,
    Event,
    Rejection,
    TaskResult,
)
from paceline.coordination.ids import LeaseId, PushId, TaskId
from paceline.simulation.clock import Clock
from paceline.simulation.faultbook import FaultBook
from paceline.simulation.faults import MANIFEST_FAULTS
from paceline.simulation.held import HeldLease
from paceline.simulation.model import Applied, SimulatedModel, SimulationError
from paceline.simulation.network import Network
from paceline.simulation.worker import Process


class Stage(Enum):
    """How far a push has come."""

    OFFERED = "offered"
    STAGING = "staging"
    DELIVERED = "delivered"


@dataclass(slots=True)
class Push:
    """One attempt to deliver a contribution.

    Attributes:
        repeat: said beside another by a worker with duplicates; nobody waits for its answer.
        cut, answer_lost, rejection: what a fault does to it.
    """

    id: PushId
    process: Process
    lease: LeaseId
    version: int
    results: tuple[TaskResult, ...]
    repeat: bool
    stage: Stage = Stage.OFFERED
    cut: bool = False
    answer_lost: bool = False
    rejection: Rejection | None = None


class Pushes:
    """All pushes of a run.

    Args:
        post: lets the coordinator hear of what the server's shell saw.
    """

    def __init__(
        self,
        clock: Clock,
        network: Network,
        faults: FaultBook,
        model: SimulatedModel,
        post: Callable[[Event], None],
    ) -> None:
        self.offered = 0
        self._clock = clock
        self._network = network
        self._faults = faults
        self._model = model
        self._post = post
        self._pushes: dict[PushId, Push] = {}

    # ---- what processes may do

    def offer(self, process: Process, held: HeldLease) -> PushId:
        """Announce a push: inside the session if it takes no time, else over the data connection."""
        first = self._offer(process, held, repeat=False)
        if process.worker.duplicates:
            self._offer(process, held, repeat=True)
        return first

    def deliver(self, push: PushId) -> None:
        """All bytes of a push are there: checked, found bad or, if the connection is to break, lost."""
        attempt = self._pushes.get(push)
        if attempt is None or attempt.stage is not Stage.STAGING:
            return
        if attempt.cut:
            self.withdraw(push)
            attempt.process.hear(partial(attempt.process.broken, push))
            return
        attempt.stage = Stage.DELIVERED
        if attempt.rejection is not None and attempt.rejection not in MANIFEST_FAULTS:
            self._post(ContributionRejected(push, attempt.rejection, f"simulated: {attempt.rejection.value}"))
        else:
            self._post(ContributionVerified(push))

    def withdraw(self, push: PushId) -> None:
        """Break off a push that is being staged."""
        attempt = self._pushes.get(push)
        if attempt is not None and attempt.stage is Stage.STAGING:
            self._post(ContributionInterrupted(push))
            del self._pushes[push]

    def withdraw_all(self, process: Process) -> None:
        """Break off whatever a process that has ended was pushing."""
        for push in [push for push, attempt in self._pushes.items() if attempt.process is process]:
            self.withdraw(push)

    # ---- what the coordinator orders

    def stage(self, order: StagePush) -> None:
        """Let the bytes come; a process that is gone sends none."""
        attempt = self._pushes[order.push]
        attempt.stage = Stage.STAGING
        process = attempt.process
        if not process.alive:
            self.withdraw(order.push)
        elif attempt.repeat:
            self._clock.after(process.worker.push_s, partial(self.deliver, order.push))
        elif process.worker.push_s == 0:
            self.deliver(order.push)
        else:
            self._network.send_data(process, lambda: process.hear(partial(process.granted, order.push)))

    def add(self, order: AddContribution) -> None:
        """Add a contribution to the model's sum.

        Raises:
            SimulationError: its bytes are not there.
        """
        attempt = self._pushes.get(order.push)
        if attempt is None or attempt.stage is not Stage.DELIVERED or attempt.lease != order.lease:
            raise SimulationError(f"{order} was ordered: its bytes are not there")
        self._model.add(Applied(attempt.lease, attempt.process.name, attempt.version, attempt.results, order.weight))
        self.answer(order)

    def answer(self, order: AddContribution | RefusePush | AcknowledgePush) -> None:
        """Tell the worker that its push is over."""
        attempt = self._pushes.pop(order.push)
        process = attempt.process
        if attempt.repeat:
            return
        if attempt.answer_lost:
            process.hear(partial(process.broken, attempt.id))
        elif process.worker.push_s > 0:
            self._network.send_data(process, lambda: process.hear(partial(process.answered, attempt.id)))
        elif process.session is not None:
            self._network.tell(process.session, partial(process.answered, attempt.id))

    def _offer(self, process: Process, held: HeldLease, *, repeat: bool) -> PushId:
        self.offered += 1
        push = PushId(self.offered)
        attempt = Push(push, process, held.lease, held.order.version, held.manifest(), repeat)
        self._pushes[push] = attempt
        if not repeat:
            self._faults.mark_push(process.name, attempt)
        offer = _manifest(attempt, held.wasted_s)
        if process.worker.push_s > 0:
            self._network.send_data(process, lambda: self._post(offer))
        elif process.session is not None:
            self._network.say(process.session, offer)
        return push


def _manifest(attempt: Push, wasted_s: float) -> ContributionOffered:
    lease, version, results = attempt.lease, attempt.version, attempt.results
    if attempt.rejection is Rejection.UNKNOWN_LEASE:
        lease = LeaseId(lease + 1_000_000)
    elif attempt.rejection is Rejection.WRONG_VERSION:
        version += 1
    elif attempt.rejection is Rejection.WRONG_TASKS:
        strange = TaskResult(
            task=TaskId(results[0].task + 1_000_000), seconds=results[0].seconds, loss_sum=0.0, samples=1
        )
        results = (strange, *results[1:])
    return ContributionOffered(
        push=attempt.id,
        lease=lease,
        incarnation=attempt.process.incarnation,
        version=version,
        results=results,
        wasted_s=wasted_s,
    )
