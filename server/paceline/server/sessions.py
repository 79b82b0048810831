"""Control connections: reads what workers say into events, writes what effects order.

Each Session stream has a reader and a writer. What is to be written waits in the session's own row, so that carrying
out an effect never waits for a network; effects for a session that is gone are dropped (the coordinator repeats them
when the worker resumes).
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Any

import grpc.aio
import structlog
from google.protobuf.message import DecodeError

from paceline.coordination import effects, events
from paceline.coordination.events import Event
from paceline.coordination.ids import Incarnation, LeaseId, SessionId, WorkerName
from paceline.errors import ProtocolError, UsageError
from paceline.fingerprint import JobFingerprint, differences
from paceline.protos import coordinator_pb2 as pb
from paceline.protos.framing import PROTOCOL_VERSION
from paceline.server import convert
from paceline.server.gate import WORKERS, Gate, Guest
from paceline.server.model import Image
from paceline.server.pushes import Pushes
from paceline.server.streams import begin, end_tasks
from paceline.server.traffic import Traffic
from paceline.server.waiting import Seat
from paceline.version import __version__

HELLO_LIMIT_S = 5.0
# A hello has some hundred bytes, and twenty for each lease that it still holds.
HELLO_BYTES = 64 * 1024
# Sessions in all, known or not.
SESSIONS = 4096
# Of how a worker's job differs so many characters are told and logged.
DIFFERENCES_SHOWN = 2000
# The answer to an accepted push waits so long for another message to travel with: the next lease, mostly.
ACCEPTED_WITHIN_S = 0.02
# A peer that does not take its last message within this time is cut off.
CLOSE_LIMIT_S = 2.0

Context = grpc.aio.ServicerContext[Any, Any]


class Session:
    """One control connection.

    Attributes:
        guest: whose call it is.
        sent_version: the last version whose image went inside a lease.
        micro_steps: as the last heartbeat told.
    """

    def __init__(self, number: SessionId, guest: Guest) -> None:
        self.id = number
        self.guest = guest
        self.name = WorkerName("")
        self.incarnation = Incarnation("")
        self.sent_version = -1
        self.micro_steps = 0
        self.closing = False
        self._out: deque[pb.ServerMessage] = deque()
        self._wake = asyncio.Event()
        self._accepted: list[pb.PushResult] = []
        self._hurry: asyncio.TimerHandle | None = None

    def send(self, message: pb.ServerMessage) -> None:
        """Put a message in the row; answers that wait travel with it."""
        if not self.closing:
            if self._accepted:
                message.accepted.extend(self._accepted)
                self._accepted.clear()
            self._out.append(message)
            self._wake.set()

    def answer(self, result: pb.PushResult) -> None:
        """Answer a push. To be accepted is no news that a worker waits for: it need not cost a message."""
        if result.verdict != pb.PUSH_VERDICT_ACCEPTED:
            self.send(pb.ServerMessage(push_result=result))
            return
        self._accepted.append(result)
        if self._hurry is None:
            self._hurry = asyncio.get_running_loop().call_later(ACCEPTED_WITHIN_S, self._send_accepted)

    def _send_accepted(self) -> None:
        self._hurry = None
        if self._accepted:
            self.send(pb.ServerMessage())

    def close(self) -> None:
        """End the stream when the row is empty."""
        self._send_accepted()
        self.closing = True
        self._wake.set()

    async def write_all(self, context: Context) -> None:
        """Write what is in the row until the session is closed."""
        while True:
            while self._out:
                await context.write(self._out.popleft())
            if self.closing:
                return
            self._wake.clear()
            await self._wake.wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class Greeting:
    """What every worker is welcomed with.

    Attributes:
        welcome: the message; `resumed` is filled in.
        fingerprint: of the server's job.
    """

    welcome: pb.Welcome
    fingerprint: JobFingerprint


class Sessions:
    """All control connections. Owned by the event loop.

    Args:
        greeting: for those who are welcome.
        pushes: takes contributions that come inside messages.
        traffic: counts the bytes that travel inside messages.
        gate: lets workers in.
    """

    def __init__(self, greeting: Greeting, pushes: Pushes, traffic: Traffic, gate: Gate) -> None:
        self._greeting = greeting
        self._gate = gate
        self._pushes = pushes
        self._traffic = traffic
        self._post: Callable[[Event], None] = lambda event: None
        self._numbers = itertools.count(1)
        self._open: dict[SessionId, Session] = {}
        self._agreed: set[Incarnation] = set()
        self._image = Image(-1, b"", 0)
        # Of this version and the one before, of which a lease may be given while the coordinator hears of this one.
        self._loss_scales: dict[int, float] = {}
        self._over: str | None = None
        self._left = asyncio.Event()
        self._away: set[str] = set()
        self._readers: dict[str, Callable[[Session, Any], None]] = {
            "ready": self._read_ready,
            "report": self._read_report,
            "heartbeat": self._read_heartbeat,
            "drain": lambda session, _: self._post(events.DrainRequested(session.id)),
            "lease_ended": lambda session, message: self._post(convert.lease_ended(session.id, message)),
            "here": lambda session, _: self._post(events.ProbeAnswered(session.id)),
            "version_gone": self._read_version_gone,
            "contribution": self._read_contribution,
        }

    def connect(self, post: Callable[[Event], None]) -> None:
        """Say where events go."""
        self._post = post

    def serve_image(self, image: Image) -> None:
        """Send this image along with leases of its version."""
        self._loss_scales = {self._image.version: self._image.loss_scale, image.version: image.loss_scale}
        self._image = image

    async def all_left(self) -> None:
        """Return when no connection is open and those who were away have come and heard of the end."""
        while self._open or self._away:
            self._left.clear()
            await self._left.wait()

    def end_all(self, outcome: pb.RunOutcome, reason: str, away: Iterable[str]) -> None:
        """Tell every worker that the run is over, and whoever comes from now on.

        Args:
            away: names of workers whose sessions are broken just now.
        """
        self._over = reason
        self._away.update(away)
        for session in list(self._open.values()):
            session.send(convert.goodbye(outcome, reason))
            session.close()

    # ---- the stream --------------------------------------------------------------------------------------------------

    async def handle(self, _: AsyncIterator[bytes], context: Context) -> None:
        """Serve one Session stream to its end."""
        guest = await self._gate.admit(context, WORKERS)
        await begin(context)
        if len(self._open) >= SESSIONS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"there are {SESSIONS} sessions: too many")
        seat = await self._gate.seat(context)
        session = Session(SessionId(next(self._numbers)), guest)
        self._open[session.id] = session
        reader = asyncio.create_task(self._read(session, context, seat))
        writer = asyncio.create_task(session.write_all(context))
        try:
            with self._gate.watch(guest, lambda reason: _send_away(session, reason)):
                await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
            # Whoever ends first, what is in the row still goes out, unless the peer does not take it.
            session.close()
            await asyncio.wait((writer,), timeout=CLOSE_LIMIT_S)
        finally:
            # Before any await: gRPC may cancel this task a second time while it cleans up.
            seat.free()
            del self._open[session.id]
            self._left.set()
            if session.incarnation:
                self._post(events.SessionClosed(session.id))
            session.closing = True
            await end_tasks(reader, writer)

    async def _read(self, session: Session, context: Context, seat: Seat) -> None:
        try:
            async with asyncio.timeout(HELLO_LIMIT_S):
                first = await context.read()
            if first is grpc.aio.EOF or not self._greet(session, _hello(first)):
                return
            seat.free()
            while (raw := await context.read()) is not grpc.aio.EOF and not session.closing:
                message = pb.WorkerMessage.FromString(raw)
                kind = message.WhichOneof("message")
                read = self._readers.get(kind)
                if read is None:
                    raise ProtocolError(f"a message of kind {kind or 'none'} came after the hello")
                read(session, getattr(message, kind))
        except TimeoutError:
            session.send(convert.refusal(pb.REFUSAL_CODE_BAD_HELLO, f"no hello within {HELLO_LIMIT_S:g} s"))
        except ProtocolError as error:
            session.send(convert.refusal(pb.REFUSAL_CODE_BAD_HELLO, str(error)))
        except DecodeError:
            session.send(convert.refusal(pb.REFUSAL_CODE_BAD_HELLO, "a message is no WorkerMessage"))

    def _greet(self, session: Session, hello: pb.Hello) -> bool:
        """Look at a hello; False if it was refused without asking the coordinator."""
        theirs = hello.protocol_version
        if theirs != PROTOCOL_VERSION:
            reason = (
                f"protocol version is {theirs} on the worker (paceline {convert.one_line(hello.package_version)})"
                f", {PROTOCOL_VERSION} on the server (paceline {__version__}): install the same paceline on both"
            )
            session.send(convert.refusal(pb.REFUSAL_CODE_PROTOCOL, reason))
            return False
        event = convert.hello(session.id, hello)
        guest = session.guest
        if guest.name not in (None, event.name):
            reason = (
                f"token {guest.token} is of worker {guest.name!r}: expected it of {event.name!r}, as the hello says"
            )
            self._gate.failed(guest.address, reason)
            session.send(convert.refusal(pb.REFUSAL_CODE_NOT_ALLOWED, reason))
            return False
        if self._over is not None:
            self._away.discard(event.name)
            session.send(convert.refusal(pb.REFUSAL_CODE_RUN_OVER, f"the run is over: {self._over}"))
            return False
        session.name, session.incarnation = event.name, event.incarnation
        self._post(event)
        return True

    # ---- what workers say --------------------------------------------------------------------------------------------

    def _read_ready(self, session: Session, message: pb.Ready) -> None:
        if message.job_fingerprint_json:
            found = differences(self._greeting.fingerprint, JobFingerprint.from_json(message.job_fingerprint_json))
            if found:
                reason = "; ".join(found)[:DIFFERENCES_SHOWN]
                structlog.get_logger().warning("worker refused", worker=session.name, reason=reason)
                session.send(convert.refusal(pb.REFUSAL_CODE_JOB_DIFFERS, reason))
                session.close()
                return
            self._agreed.add(session.incarnation)
        elif session.incarnation not in self._agreed:
            raise ProtocolError("ready without a job fingerprint: expected one in the first session")
        self._post(events.Ready(session.id))

    def _read_report(self, session: Session, message: pb.Report) -> None:
        self._post(convert.report(session.id, message))
        if message.HasField("contribution"):
            self._read_contribution(session, message.contribution)

    def _read_contribution(self, session: Session, message: pb.Contribution) -> None:
        self._pushes.offer_payload(message, session.answer)

    def _read_heartbeat(self, session: Session, message: pb.Heartbeat) -> None:
        progress = message.micro_steps > session.micro_steps
        session.micro_steps = message.micro_steps
        self._post(events.Heard(session.incarnation, progress))

    def _read_version_gone(self, session: Session, message: pb.VersionGone) -> None:
        self._post(events.VersionGone(session.id, LeaseId(message.lease)))

    # ---- effects -----------------------------------------------------------------------------------------------------

    def welcome(self, effect: effects.Welcome) -> None:
        """Tell a worker what it must know."""
        session = self._open.get(effect.session)
        if session is not None:
            self._gate.joined[session.incarnation] = session.guest.token
            message = pb.ServerMessage(welcome=self._greeting.welcome)
            message.welcome.resumed = effect.resumed
            self._traffic.pulled_bytes += len(message.welcome.constants)
            session.send(message)

    def refuse(self, effect: effects.Refuse) -> None:
        """Refuse and close."""
        self._send(effect.session, convert.refused(effect))
        self.close(effect)

    def probe(self, effect: effects.Probe) -> None:
        """Ask whether the worker is still there."""
        self._send(effect.session, pb.ServerMessage(are_you_there=pb.AreYouThere()))

    def lease(self, effect: effects.SendLease) -> None:
        """Give a lease; a small version goes along once per session."""
        session = self._open.get(effect.session)
        if session is None:
            return
        image, scale = self._image, self._loss_scales.get(effect.version, 1.0)
        if image.state and image.version == effect.version and session.sent_version != effect.version:
            session.sent_version = effect.version
            self._traffic.pulled_bytes += len(image.state)
            session.send(convert.lease(effect, scale, image.state, image.crc32c))
        else:
            session.send(convert.lease(effect, scale))

    def grant(self, effect: effects.SendGrant) -> None:
        """Grant further tasks."""
        self._send(effect.session, convert.grant(effect))

    def verdict(self, effect: effects.SendVerdict) -> None:
        """Keep or drop a task."""
        self._send(effect.session, convert.verdict(effect))

    def collect(self, effect: effects.SendCollect) -> None:
        """Order a contribution."""
        self._send(effect.session, convert.collect(effect))

    def cancel(self, effect: effects.SendCancel) -> None:
        """Take a lease back."""
        self._send(effect.session, convert.cancel(effect))

    def goodbye(self, effect: effects.Goodbye) -> None:
        """Let a drained worker go."""
        self._send(effect.session, convert.goodbye(pb.RUN_OUTCOME_DRAINED, effect.reason))
        self.close(effect)

    def close(self, effect: effects.CloseSession | effects.Refuse | effects.Goodbye) -> None:
        """End a connection."""
        session = self._open.get(effect.session)
        if session is not None:
            session.close()

    def worker_changed(self, effect: effects.WorkerChanged) -> None:
        """Forget what was agreed with a worker that is gone."""
        if effect.state in ("lost", "left"):
            self._agreed.discard(effect.incarnation)
            self._gate.joined.pop(effect.incarnation, None)

    def drain(self, name: str) -> None:
        """Let a worker go: it gets nothing new and is told to ask to leave.

        Raises:
            UsageError: it is not connected.
        """
        named = [session for session in self._open.values() if session.name == name and not session.closing]
        welcome = [session for session in named if session.incarnation in self._gate.joined]
        if not welcome:
            raise UsageError(f"no worker {name!r} is connected: see `paceline status`")
        for session in welcome:
            session.send(pb.ServerMessage(drain=pb.Drain()))
            self._post(events.DrainRequested(session.id))

    def _send(self, session_id: SessionId, message: pb.ServerMessage) -> None:
        session = self._open.get(session_id)
        if session is not None:
            session.send(message)


def _hello(raw: bytes) -> pb.Hello:
    """Read the first message of a session, of whose peer nothing is known."""
    if len(raw) > HELLO_BYTES:
        raise ProtocolError(f"the first message has {len(raw)} bytes: expected a hello of at most {HELLO_BYTES}")
    message = pb.WorkerMessage.FromString(raw)
    if message.WhichOneof("message") != "hello":
        raise ProtocolError(f"the first message is {message.WhichOneof('message') or 'empty'}: expected hello")
    return message.hello


def _send_away(session: Session, reason: str) -> None:
    session.send(convert.refusal(pb.REFUSAL_CODE_NOT_ALLOWED, reason))
    session.close()
