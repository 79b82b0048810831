"""What the computing thread and the communication thread share, under one lock: the lease book and what surrounds it.

The communication thread enters what the server says; the computing thread takes steps from it and sleeps here when
there are none. No I/O, no tensor work and no user code happens under the lock.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from paceline.errors import RefusedError, RunFailedError, TryAgainError
from paceline.protos import coordinator_pb2 as pb
from paceline.protos.framing import PROTOCOL_VERSION, crc32c
from paceline.settings import SharedSettings
from paceline.tasks import is_validation
from paceline.version import __version__
from paceline.worker import convert
from paceline.worker.connection import Connection
from paceline.worker.foresight import Foresight
from paceline.worker.leases import HeldLease, LeaseBook, Step
from paceline.worker.transfer import Pull, Push

_UNTIL_WELCOME_S = 2.0
# A signal that comes just as a wait begins does not end it: Python has looked for signals before.
_LOOK_EVERY_S = 0.5
# Messages that change which tasks are to be computed.
_OF_TASKS = ("lease", "grant", "collect", "cancel")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a worker says of itself."""

    name: str
    incarnation: str
    host: str
    pid: int
    device: str
    pace: float


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """A welcome that has to be acted upon: build the job, agree on it, be ready."""

    welcome: pb.Welcome
    shared: SharedSettings


class Desk:
    """See the module.

    Args:
        server: its address, for messages.
        identity: goes into each hello.
        say: tells people, in one line.

    Attributes:
        connection: set before anything is sent.
        tasks_changed: hears, under the lock, which tasks will be computed next, whenever the server changed that: those
            that wait, then those that the next lease may bring.
    """

    connection: Connection
    tasks_changed: Callable[[Sequence[int]], None]

    def __init__(self, server: str, identity: Identity, say: Callable[[str], None]) -> None:
        self._server = server
        self._identity = identity
        self._say = say
        self._changed = threading.Condition()
        self._book = LeaseBook()
        self._foresight = Foresight()
        self._images: dict[int, bytes] = {}
        self._contributions: dict[int, pb.Contribution] = {}
        self._terms: Terms | None = None
        self._terms_taken = True
        self._ready: str | None = None
        self._confirmed = False
        self._connected = False
        self._outage = 0
        self._end: BaseException | str | None = None
        self._micro_steps = 0

    # ---- the computing thread ---------------------------------------------------------------------------------

    def next_step(self) -> Step | Terms | None:
        """Wait for something to do; None: it is all over, see `ending`."""
        with self._changed:
            while self._end is None:
                if self._terms is not None and not self._terms_taken:
                    self._terms_taken = True
                    return self._terms
                step = self._book.next_step()
                if step is not None:
                    return step
                self._changed.wait(_LOOK_EVERY_S)
            return None

    def ending(self) -> str:
        """Say how it ended.

        Raises:
            PacelineError: badly.
        """
        if isinstance(self._end, BaseException):
            raise self._end
        return self._end or ""

    @contextlib.contextmanager
    def books(self) -> Iterator[LeaseBook]:
        """Read or change the lease book."""
        with self._changed:
            yield self._book

    def wanted(self, lease: HeldLease) -> bool:
        """Tell whether a running task of a lease is still of use."""
        return self._end is None and self._book.wanted(lease)

    def current(self, terms: Terms) -> bool:
        """Tell whether these terms still hold: no end, and no other welcome."""
        return self._end is None and self._terms is terms

    def wait_for(self, condition: Callable[[], bool], seconds: float = math.inf) -> None:
        """Wait until a condition holds, or so long; it is looked at whenever the server said something."""
        end_s = time.monotonic() + seconds
        with self._changed:
            while not condition() and (left_s := end_s - time.monotonic()) > 0:
                self._changed.wait(min(left_s, _LOOK_EVERY_S))

    def sleep(self, seconds: float, wanted: Callable[[], bool]) -> None:
        """Sleep, or less if a task is not wanted any more."""
        self.wait_for(lambda: not wanted(), seconds)

    def worked(self) -> None:
        """Count a micro-step: heartbeats tell of it."""
        self._micro_steps += 1

    def image(self, version: int) -> bytes | None:
        """Give a version that came inline."""
        return self._images.get(version)

    @property
    def leaving(self) -> bool:
        """Tell whether nothing new is to be begun."""
        return self._end is not None or self._book.draining

    @property
    def ready(self) -> bool:
        """Tell whether the worker has said that it is ready."""
        return self._ready is not None

    def say_ready(self, terms: Terms, fingerprint_json: str) -> None:
        """Tell the server that tasks may come."""
        with self._changed:
            if not self.current(terms):
                return
            self._ready = fingerprint_json
            self.connection.send(_ready(fingerprint_json))

    def send(self, message: pb.WorkerMessage) -> None:
        """Say something in the present session, if there is one."""
        self.connection.send(message)

    def deliver_inline(self, lease: HeldLease, make: Callable[[], pb.Contribution]) -> pb.Contribution | None:
        """Note a lease's contribution as on its way; None if nobody wants it any more."""
        with self._changed:
            if lease.cancelled or lease.id not in self._book:
                return None
            contribution = make()
            lease.delivering = True
            self._contributions[lease.id] = contribution
            return contribution

    def deliver(self, lease: HeldLease, make: Callable[[], Push]) -> None:
        """The same for a push."""
        with self._changed:
            if lease.cancelled or lease.id not in self._book:
                return
            push = make()
            lease.delivering = True
        self.connection.post(self._begin_push, lease, push)

    def pull(self, pull: Pull, wanted: Callable[[], bool]) -> None:
        """Have something pulled; returns when its target is written no more."""
        self.connection.post(lambda: self.connection.transfer.pull(pull))
        self.wait_for(lambda: pull.ended or not wanted())
        if not pull.ended:
            self.connection.post(lambda: self.connection.transfer.drop_pull(pull))
            self.wait_for(lambda: pull.ended or self._end is not None)

    def end_lease(self, lease: HeldLease, *, version_gone: bool = False) -> None:
        """Say that nothing will be pushed for a lease."""
        with self._changed:
            self._contributions.pop(lease.id, None)
            if self._book.remove(lease.id) is None:
                return
        if version_gone:
            self.send(pb.WorkerMessage(version_gone=pb.VersionGone(lease=lease.id)))
        else:
            self.send(convert.lease_ended(lease.id, lease.wasted_s))

    def drain(self) -> None:
        """Ask to leave. Thread-safety: any thread; signal handlers too."""
        self.connection.post(self._drain)

    # ---- the communication thread: sessions -------------------------------------------------------------------

    def hello(self) -> pb.Hello:
        """See SessionHandler."""
        with self._changed:
            leases = [lease.id for lease in self._book.held()]
        identity = self._identity
        return pb.Hello(
            protocol_version=PROTOCOL_VERSION,
            package_version=__version__,
            name=identity.name,
            incarnation=identity.incarnation,
            host=identity.host,
            pid=identity.pid,
            device=identity.device,
            pace=identity.pace,
            leases=leases,
        )

    def over(self) -> bool:
        """See SessionHandler."""
        return self._end is not None

    def welcomed(self, welcome: pb.Welcome) -> list[pb.WorkerMessage]:
        """See SessionHandler."""
        try:
            shared = SharedSettings.model_validate_json(welcome.settings_json)
        except ValidationError as error:
            reason = f"the server (paceline {welcome.package_version}) has settings that {__version__} does not know"
            self.failed(RefusedError(f"{reason}: {error.errors()[0]['msg']}"))
            return []
        with self._changed:
            self._connected = True
            self._outage = 0
            if not welcome.resumed or self._terms is None:
                self._begin_afresh()
                self._terms = Terms(welcome, shared)
                self._terms_taken = False
            self._changed.notify_all()
            return self._say_again()

    def heartbeat_s(self) -> float:
        """See SessionHandler."""
        return self._terms.shared.heartbeat_s if self._terms is not None else _UNTIL_WELCOME_S

    def heartbeat(self) -> pb.WorkerMessage:
        """See SessionHandler."""
        return pb.WorkerMessage(heartbeat=pb.Heartbeat(micro_steps=self._micro_steps))

    def unreachable(self) -> None:
        """See SessionHandler."""
        with self._changed:
            self._connected = False
            self._outage += 1
            # A session that broke is mostly back at the first attempt: not worth a word.
            if self._outage == (2 if self._terms is not None else 1):
                self._tell(f"waiting for {self._server}")
            if self._book.draining and not len(self._book):
                self._finish("drained")

    def failed(self, error: BaseException) -> None:
        """See SessionHandler."""
        with self._changed:
            self._finish(error)

    # ---- the communication thread: messages -------------------------------------------------------------------

    def received(self, message: pb.ServerMessage) -> pb.WorkerMessage | None:
        """See SessionHandler."""
        with self._changed:
            for result in message.accepted:
                self.push_answered(result)
            answer = self._take(message)
            kind = message.WhichOneof("message")
            if kind in _OF_TASKS:
                self.tasks_changed([*self._book.upcoming(), *self._foresight.guess()])
            if kind not in (None, "push_result"):
                self._changed.notify_all()
        return answer

    def pull_ended(self, pull: Pull) -> None:
        """See TransferHandler."""
        with self._changed:
            self._changed.notify_all()

    def push_answered(self, result: pb.PushResult) -> None:
        """See TransferHandler."""
        with self._changed:
            self._contributions.pop(result.lease, None)
            lease = self._book.remove(result.lease)
            # A sum that was copied was free before: to wake the computing thread would cost a switch for nothing.
            if lease is not None and lease.holds_sum:
                self._changed.notify_all()
        if result.verdict == pb.PUSH_VERDICT_REFUSED:
            self._tell(f"a contribution was refused ({result.rejection}): {result.message}")

    def _take(self, message: pb.ServerMessage) -> pb.WorkerMessage | None:
        book = self._book
        match message.WhichOneof("message"):
            case "lease":
                return self._take_lease(message.lease)
            case "grant":
                grant = message.grant
                return self._known(grant.lease, book.grant(grant.lease, convert.task_ids(grant.tasks)))
            case "verdict":
                book.verdict(message.verdict.lease, message.verdict.task, message.verdict.keep)
            case "collect":
                collect = message.collect
                return self._known(collect.lease, book.collect(collect.lease, convert.task_ids(collect.kept)))
            case "cancel":
                lease_id = message.cancel.lease
                self.connection.transfer.drop_push(lease_id)
                return self._known(lease_id, book.cancel(lease_id))
            case "push_result":
                self.push_answered(message.push_result)
            case "drain":
                self._tell("an admin wants it to leave: finishes its task, pushes what it has and leaves")
                self._drain()
            case "are_you_there":
                return pb.WorkerMessage(here=pb.Here())
            case "goodbye":
                self._goodbye(message.goodbye)
            case "refused":
                self._refused(message.refused)
        return None

    def _take_lease(self, message: pb.Lease) -> pb.WorkerMessage | None:
        self._confirmed = True
        if message.state and crc32c(message.state) == message.state_crc32c:
            versions = {lease.version for lease in self._book.held()}
            self._images = {v: image for v, image in self._images.items() if v in versions}
            self._images[message.version] = message.state
        tasks = convert.task_ids(message.tasks)
        if message.lease not in self._book and not any(map(is_validation, tasks)):
            self._foresight.came(tasks)
        taken = self._book.give(convert.held_lease(message), tasks)
        return self._known(message.lease, taken)

    def _known(self, lease_id: int, known: bool) -> pb.WorkerMessage | None:
        """Answer what was said of a lease that ended: the server may not have heard of its end."""
        return None if known else convert.lease_ended(lease_id, self._book.wasted_of_over(lease_id))

    def _goodbye(self, goodbye: pb.Goodbye) -> None:
        if goodbye.outcome == pb.RUN_OUTCOME_FAILED:
            self._finish(RunFailedError(f"the run failed: {goodbye.reason}"))
        elif goodbye.outcome == pb.RUN_OUTCOME_DRAINED:
            self._finish("drained")
        elif goodbye.outcome == pb.RUN_OUTCOME_STOPPED:
            self._finish(TryAgainError(f"the run was stopped: {goodbye.reason}; it may be resumed"))
        else:
            self._finish(f"the run is over: {goodbye.reason}" if goodbye.reason else "the run is over")

    def _refused(self, refused: pb.Refused) -> None:
        if refused.code == pb.REFUSAL_CODE_LOST:
            self._tell(f"{refused.reason or 'taken for lost'}: joining afresh")
            self._begin_afresh()
            self._outage = 0
        elif refused.code == pb.REFUSAL_CODE_RUN_OVER:
            self._finish(refused.reason or "the run is over")
        else:
            self._finish(RefusedError(f"refused by the server: {refused.reason}"))

    def _begin_afresh(self) -> None:
        """Drop all leases: whatever this worker held is void."""
        self.connection.transfer.drop_all()
        self._book.clear()
        self._images.clear()
        self._contributions.clear()
        self._ready = None
        self._confirmed = False

    def _say_again(self) -> list[pb.WorkerMessage]:
        """Repeat what the server may not have heard before the session broke; all of it is idempotent."""
        messages = []
        if self._ready is not None and not self._confirmed:
            messages.append(_ready(self._ready))
        if self._book.draining:
            messages.append(pb.WorkerMessage(drain=pb.Drain()))
        for lease in self._book.held():
            if lease.delivering:
                if lease.id in self._contributions:
                    messages.append(pb.WorkerMessage(contribution=self._contributions[lease.id]))
                continue
            messages += [convert.failure_report(lease.id, failed) for failed in lease.failures.values()]
            messages += [
                convert.report(lease.id, result) for task, result in lease.results.items() if task not in lease.verdicts
            ]
        return messages

    def _drain(self) -> None:
        with self._changed:
            self._book.drain()
            self.connection.send_now(pb.WorkerMessage(drain=pb.Drain()))
            if not self._connected and not len(self._book):
                self._finish("drained")
            self._changed.notify_all()

    def _begin_push(self, lease: HeldLease, push: Push) -> None:
        with self._changed:
            if lease.id in self._book and not lease.cancelled:
                self.connection.transfer.push(push)

    def _tell(self, text: str) -> None:
        # Not under the lock: standard error may be a pipe that nobody reads.
        self.connection.post(self._say, text)

    def _finish(self, end: BaseException | str) -> None:
        """End; the first word stands."""
        if self._end is None:
            self._end = end
        self._changed.notify_all()


def _ready(fingerprint_json: str) -> pb.WorkerMessage:
    return pb.WorkerMessage(ready=pb.Ready(job_fingerprint_json=fingerprint_json))
