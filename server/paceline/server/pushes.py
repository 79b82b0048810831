"""Follows each push from its announcement to its answer: stage, verification, addition.

The coordinator decides what may be staged and what is added; the model thread checks and adds; this keeps the account
of both and of the stages. A push travels inside a message of the session (all its bytes are here when it is offered) or
in chunks over a transfer stream (it waits for a stage first).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial

from paceline.coordination.effects import AcknowledgePush, AddContribution, RefusePush, StagePush
from paceline.coordination.events import (
    ContributionInterrupted,
    ContributionRejected,
    ContributionVerified,
    Event,
    Rejection,
)
from paceline.coordination.ids import LeaseId, PushId
from paceline.protos import coordinator_pb2 as pb
from paceline.server import convert
from paceline.server.convert import ManifestCheck
from paceline.server.model import Fault, ServerModel
from paceline.server.staging import Stage, StagePool
from paceline.server.traffic import Traffic
from paceline.server.workthread import WorkThread

Reply = Callable[[pb.PushResult], None]


class Phase(Enum):
    """Where a push stands; only STAGING takes chunks."""

    OFFERED = auto()
    WAITING = auto()
    STAGING = auto()
    CHECKED = auto()  # the coordinator has been told the outcome; its answer comes
    OVER = auto()


@dataclass(slots=True, eq=False)
class Push:
    """One attempt to deliver a contribution.

    Attributes:
        lowest_task: of the tasks in it.
        reply: sends its result to the worker, if it can still be reached.
        fault: what is wrong with the announcement.
        payload, payload_crc32c: of one that came inside a message.
        granted: tells the worker to send its chunks; None where the payload is here.
        stage: its place in the pool, while it has one or waits for one.
        staged: it has a buffer, or will have when the model thread gets to it.
    """

    id: PushId
    lease: LeaseId
    lowest_task: int
    reply: Reply
    fault: Fault | None = None
    payload: bytes = b""
    payload_crc32c: int = 0
    granted: Callable[[], None] | None = None
    stage: Stage | None = None
    staged: bool = False
    received_bytes: int = 0
    phase: Phase = Phase.OFFERED


class Pushes:
    """All pushes in progress. Owned by the event loop.

    Args:
        model, thread: the model, and the thread that alone touches it.
        pool: of stages, for pushes that come in chunks.
        check: of manifests.
    """

    def __init__(
        self, model: ServerModel, thread: WorkThread, pool: StagePool, check: ManifestCheck, traffic: Traffic
    ) -> None:
        self._model = model
        self._thread = thread
        self._pool = pool
        self._check = check
        self._traffic = traffic
        self._post: Callable[[Event], None] = lambda event: None
        self._numbers = itertools.count(1)
        self._pushes: dict[PushId, Push] = {}
        self._sum_stage: Stage | None = None

    def connect(self, post: Callable[[Event], None]) -> None:
        """Say where events go."""
        self._post = post

    # ---- from workers ------------------------------------------------------------------------------------------------

    def offer_payload(self, contribution: pb.Contribution, reply: Reply) -> None:
        """Take in a contribution that came inside a message."""
        manifest, payload = contribution.manifest, contribution.payload
        fault = self._check.fault(manifest)
        if fault is None and len(payload) != manifest.total_bytes:
            short = len(payload) < manifest.total_bytes
            kind = Rejection.TRUNCATED if short else Rejection.WRONG_SIZE
            fault = kind, f"{len(payload)} bytes came: expected {manifest.total_bytes}"
        push = self._open(manifest, reply, fault)
        push.payload, push.payload_crc32c = payload, contribution.payload_crc32c
        self._traffic.pushed_bytes += len(payload)
        self._post(convert.offered(push.id, manifest))

    def offer(self, manifest: pb.Manifest, reply: Reply, granted: Callable[[], None]) -> Push:
        """Take in the announcement of a push in chunks."""
        push = self._open(manifest, reply, self._check.fault(manifest))
        push.granted = granted
        self._post(convert.offered(push.id, manifest))
        return push

    def chunk(self, push: Push, data: memoryview, crc32c: int, written: Callable[[], None]) -> bool:
        """Hand a chunk to be checked and put in its place; False if the push does not take it any more.

        Args:
            written: called when the chunk's memory is free again.
        """
        if push.phase is not Phase.STAGING or push.stage is None:
            return False
        offset = push.received_bytes
        push.received_bytes = push.stage.received_bytes = offset + len(data)
        self._traffic.pushed_bytes += len(data)
        if push.received_bytes > self._check.nbytes:
            self._reject(push, (Rejection.WRONG_SIZE, f"more than the {self._check.nbytes} bytes announced came"))
            return False

        def checked(fault: Fault | None) -> None:
            written()
            if fault is not None:
                self._reject(push, fault)

        self._thread.submit(partial(self._model.write, push.id, offset, data, crc32c), checked)
        return True

    def complete(self, push: Push) -> None:
        """All chunks were sent: once the last is checked, the push is verified."""
        if push.phase is not Phase.STAGING or push.stage is None:
            return
        if push.received_bytes < self._check.nbytes:
            message = f"{push.received_bytes} bytes came: expected {self._check.nbytes}"
            self._reject(push, (Rejection.TRUNCATED, message))
            return
        self._pool.filled(push.stage)
        self._thread.submit(lambda: None, lambda _: self._verified(push))

    def broken(self, push: Push) -> None:
        """The stream of a push in chunks has ended; what was not verified by then is given up."""
        if push.phase in (Phase.WAITING, Phase.STAGING):
            push.phase = Phase.CHECKED
            self._forget(push)
            self._post(ContributionInterrupted(push.id))

    # ---- effects -----------------------------------------------------------------------------------------------------

    def stage(self, effect: StagePush) -> None:
        """Begin to stage, or refuse at once what its announcement shows to be wrong."""
        push = self._pushes[effect.push]
        if push.fault is not None:
            self._reject(push, push.fault)
        elif push.granted is None:
            push.phase, push.staged = Phase.STAGING, True
            work = partial(self._model.write_whole, push.id, push.lowest_task, push.payload, push.payload_crc32c)
            push.payload = b""
            self._thread.submit(work, lambda fault: self._reject(push, fault) if fault else self._verified(push))
        else:
            push.phase = Phase.WAITING
            push.stage = Stage(partial(self._granted, push), partial(self._too_slow, push))
            self._pool.request(push.stage)

    def refuse(self, effect: RefusePush) -> None:
        """Tell the worker that its contribution is not taken."""
        push = self._pushes.get(effect.push)
        if push is not None:
            self._forget(push)
            push.reply(convert.rejected(push.lease, effect.rejection, effect.message))

    def acknowledge(self, effect: AcknowledgePush) -> None:
        """Tell the worker that its contribution was taken before."""
        push = self._pushes.get(effect.push)
        if push is not None:
            self._forget(push)
            push.reply(convert.accepted(push.lease))

    def add(self, effect: AddContribution) -> None:
        """Have a verified stage added."""
        push = self._pushes.pop(effect.push)
        push.phase = Phase.OVER
        work, stage = partial(self._model.add, push.id, effect.weight, effect.measured), push.stage
        if stage is None:
            self._thread.submit_with_next(work)
        else:
            self._thread.submit(work, partial(self._added, stage))
        push.reply(convert.accepted(push.lease))

    def sum_is_used(self) -> None:
        """The update was made: the stage that had become the sum is free."""
        if self._sum_stage is not None:
            stage, self._sum_stage = self._sum_stage, None
            self._pool.release(stage)

    # ---- inside ------------------------------------------------------------------------------------------------------

    def _open(self, manifest: pb.Manifest, reply: Reply, fault: Fault | None) -> Push:
        push = Push(PushId(next(self._numbers)), LeaseId(manifest.lease), min(manifest.tasks, default=0), reply, fault)
        self._pushes[push.id] = push
        return push

    def _granted(self, push: Push) -> None:
        push.phase, push.staged = Phase.STAGING, True
        self._thread.submit(partial(self._model.open_stage, push.id, push.lowest_task))
        if push.granted is not None:
            push.granted()

    def _too_slow(self, push: Push) -> None:
        if push.phase is Phase.STAGING:
            message = f"{push.received_bytes} bytes came, too slowly while others wait"
            self._reject(push, (Rejection.TOO_SLOW, message))

    def _verified(self, push: Push) -> None:
        if push.phase is Phase.STAGING:
            push.phase = Phase.CHECKED
            self._post(ContributionVerified(push.id))

    def _reject(self, push: Push, fault: Fault) -> None:
        if push.phase not in (Phase.CHECKED, Phase.OVER):
            push.phase = Phase.CHECKED
            self._post(ContributionRejected(push.id, *fault))

    def _added(self, stage: Stage, became_sum: bool) -> None:
        if became_sum:
            self._sum_stage = stage
        else:
            self._pool.release(stage)

    def _forget(self, push: Push) -> None:
        """Drop a push and free its stage, once the model thread is done with it."""
        push.phase = Phase.OVER
        del self._pushes[push.id]
        stage, push.stage = push.stage, None
        if stage is not None and self._pool.withdraw(stage):
            return
        if push.staged:
            done = None if stage is None else lambda _: self._pool.release(stage)
            self._thread.submit(partial(self._model.discard, push.id), done)
