"""Data connections: pulls and pushes in chunks, as raw bytes that are framed by hand (see protos/framing.py).

A pull reads the present version straight from the model's bytes, chunk by chunk on the event loop. So no chunk is torn
by an update: the loop stops serving a version before it orders the update, and a pull that is cut off so is told that
its version is gone. Where late work counts, updates do not wait for slow pullers and would cut them off for ever: there
the pulls in progress get a copy of the version, one for all of them, and go on. So there are at most as many copies as
pulls that last longer than an update.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import grpc.aio
from google.protobuf.message import DecodeError

from paceline.coordination.events import Event, Heard
from paceline.coordination.ids import Incarnation
from paceline.errors import ProtocolError
from paceline.flat import FlatModel
from paceline.protos import coordinator_pb2 as pb
from paceline.protos.framing import PROTOCOL_VERSION, ChunkSize, frame_chunk, parse_chunk
from paceline.server.convert import INCARNATION
from paceline.server.gate import WORKERS, Gate, Guest
from paceline.server.pushes import Push, Pushes
from paceline.server.streams import begin, end_tasks
from paceline.server.traffic import Traffic

ATTACH_LIMIT_S = 5.0
ATTACH_BYTES = 1024
# Chunks that may wait for the model thread before no more are read.
WINDOW_CHUNKS = 4
# Transfers count as progress so often, and not with every chunk.
HEARD_EVERY_S = 0.5

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(slots=True, eq=False, weakref_slot=True)
class Pull:
    """A pull in progress: of a version, or of the constants (None); `copied`: from bytes that no update changes."""

    version: int | None
    view: memoryview
    offset: int = 0
    copied: bool = False


class Source:
    """What can be pulled: the constants always, a version while no update is on its way.

    Args:
        flat: the server's model.
        outlives: pulls go on when their version is served no more.
    """

    def __init__(self, flat: FlatModel, *, outlives: bool = False) -> None:
        flat.image.to_host()
        self._flat = flat
        self._outlives = outlives
        self._version: int | None = None
        self._pulls: weakref.WeakSet[Pull] = weakref.WeakSet()

    def serve(self, version: int | None) -> None:
        """Serve this version, whose bytes are on the host; None: none, the bytes are about to change."""
        if self._outlives and version is None:
            self._copy()
        self._version = version

    def open(self, request: pb.PullRequest) -> Pull | None:
        """Begin a pull; None if its version is not to be had."""
        if request.constants:
            return Pull(None, self._flat.constants_view)
        if request.version != self._version:
            return None
        pull = Pull(request.version, self._flat.version_view)
        self._pulls.add(pull)
        return pull

    def has(self, pull: Pull) -> bool:
        """Tell whether a pull may go on."""
        return pull.copied or pull.version is None or pull.version == self._version

    def _copy(self) -> None:
        unfinished = [pull for pull in self._pulls if not pull.copied and pull.offset < len(pull.view)]
        if unfinished:
            copy = memoryview(bytes(self._flat.version_view))
            for pull in unfinished:
                pull.view, pull.copied = copy, True
        self._pulls.clear()


class Stream:
    """One Transfer stream: at most one push at a time, and pulls one after another.

    Args:
        incarnation: of the worker.
        source: of pulls.
        traffic: counts what is sent.
        heard: called when bytes moved.
    """

    def __init__(self, source: Source, traffic: Traffic, heard: Callable[[], None]) -> None:
        self.push: Push | None = None
        self.window = asyncio.Semaphore(WINDOW_CHUNKS)
        self._source = source
        self._traffic = traffic
        self._heard = heard
        self._out: deque[pb.TransferDown] = deque()
        self._pulls: deque[Pull] = deque()
        self._size = ChunkSize()
        self._wake = asyncio.Event()

    def send(self, message: pb.TransferDown) -> None:
        """Put a message in the row; it overtakes chunks."""
        self._out.append(message)
        self._wake.set()

    def pull(self, request: pb.PullRequest) -> None:
        """Begin a pull, or say that its version is gone."""
        pull = self._source.open(request)
        if pull is None:
            self.send(pb.TransferDown(pull_gone=pb.PullGone(version=request.version)))
            return
        begin = pb.PullBegin(version=request.version, constants=request.constants, total_bytes=len(pull.view))
        self.send(pb.TransferDown(pull_begin=begin))
        self._pulls.append(pull)

    async def write_all(self, context: Context) -> None:
        """Write messages and chunks until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            if self._out:
                await context.write(self._out.popleft().SerializeToString())
            elif self._pulls:
                framed = self._next_chunk(self._pulls[0])
                if framed is not None:
                    began_s = loop.time()
                    await context.write(framed)
                    self._size.wrote(loop.time() - began_s)
                    self._heard()
            else:
                self._wake.clear()
                await self._wake.wait()

    def _next_chunk(self, pull: Pull) -> bytes | None:
        if not self._source.has(pull):
            self._pulls.popleft()
            self.send(pb.TransferDown(pull_gone=pb.PullGone(version=pull.version or 0)))
            return None
        piece = pull.view[pull.offset : pull.offset + self._size.bytes]
        pull.offset += len(piece)
        if pull.offset == len(pull.view):
            self._pulls.popleft()
        self._traffic.pulled_bytes += len(piece)
        return frame_chunk(piece) if piece else None


class Transfers:
    """All data connections. Owned by the event loop.

    Args:
        gate: lets workers in.
    """

    def __init__(self, source: Source, pushes: Pushes, traffic: Traffic, gate: Gate) -> None:
        self._source = source
        self._gate = gate
        self._pushes = pushes
        self._traffic = traffic
        self._post: Callable[[Event], None] = lambda event: None

    def connect(self, post: Callable[[Event], None]) -> None:
        """Say where events go."""
        self._post = post

    async def handle(self, _: AsyncIterator[bytes], context: Context) -> None:
        """Serve one Transfer stream to its end."""
        guest = await self._gate.admit(context, WORKERS)
        await begin(context)
        seat = await self._gate.seat(context)
        try:
            incarnation = await self._attach(context)
            if incarnation is None:
                return
            if not self._gate.may_attach(guest, incarnation):
                reason = "attach names a worker that did not join with this token"
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, reason)
            seat.free()
            await self._serve(guest, incarnation, context)
        except (ProtocolError, DecodeError) as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, f"no attach within {ATTACH_LIMIT_S:g} s")
        finally:
            seat.free()

    async def _serve(self, guest: Guest, incarnation: Incarnation, context: Context) -> None:
        stream = Stream(self._source, self._traffic, self._throttled(incarnation))
        writer = asyncio.create_task(stream.write_all(context))
        reader = asyncio.create_task(self._read_all(stream, incarnation, context))
        sent_away = ""

        def send_away(reason: str) -> None:
            nonlocal sent_away
            sent_away = reason
            reader.cancel()

        try:
            with self._gate.watch(guest, send_away):
                await reader
        except asyncio.CancelledError:
            if not sent_away:
                raise
        finally:
            # Before any await: gRPC may cancel this task a second time while it cleans up.
            if stream.push is not None:
                self._pushes.broken(stream.push)
            await end_tasks(writer)
        if sent_away:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, sent_away)

    async def _attach(self, context: Context) -> Incarnation | None:
        async with asyncio.timeout(ATTACH_LIMIT_S):
            first = await context.read()
        if first is grpc.aio.EOF:
            return None
        if len(first) > ATTACH_BYTES:
            raise ProtocolError(
                f"the first message has {len(first)} bytes: expected an attach of at most {ATTACH_BYTES}"
            )
        message = pb.TransferUp.FromString(first)
        if message.WhichOneof("message") != "attach":
            raise ProtocolError("the first message of a transfer stream is something else than attach")
        attach = message.attach
        if attach.protocol_version != PROTOCOL_VERSION:
            raise ProtocolError(f"protocol version is {attach.protocol_version}: expected {PROTOCOL_VERSION}")
        if not INCARNATION.fullmatch(attach.incarnation):
            raise ProtocolError(f"incarnation is {attach.incarnation[:80]!r}: expected 32 hexadecimal digits")
        return Incarnation(attach.incarnation)

    async def _read_all(self, stream: Stream, incarnation: Incarnation, context: Context) -> None:
        heard = self._throttled(incarnation)
        while (raw := await context.read()) is not grpc.aio.EOF:
            chunk = parse_chunk(raw)
            if chunk is not None:
                heard()
                await self._read_chunk(stream, *chunk)
                continue
            message = pb.TransferUp.FromString(raw)
            match message.WhichOneof("message"):
                case "pull":
                    stream.pull(message.pull)
                case "push":
                    self._read_push(stream, incarnation, message.push)
                case "push_done":
                    if stream.push is not None and stream.push.lease == message.push_done.lease:
                        self._pushes.complete(stream.push)
                case kind:
                    raise ProtocolError(f"a message of kind {kind or 'none'} came after the attach")

    def _read_push(self, stream: Stream, incarnation: Incarnation, manifest: pb.Manifest) -> None:
        if manifest.incarnation != incarnation:
            raise ProtocolError("a push names another incarnation than its stream")
        if stream.push is not None:
            # Announced anew: what came of the earlier attempt counts no more.
            self._pushes.broken(stream.push)
        granted = pb.TransferDown(push_granted=pb.PushGranted(lease=manifest.lease))
        stream.push = self._pushes.offer(
            manifest,
            reply=lambda result: stream.send(pb.TransferDown(push_result=result)),
            granted=lambda: stream.send(granted),
        )

    async def _read_chunk(self, stream: Stream, data: memoryview, crc32c: int) -> None:
        push = stream.push
        if push is None:
            return
        if stream.window.locked() and push.stage is not None:
            # The model thread is behind, not the worker.
            push.stage.held_up = True
        await stream.window.acquire()
        if push.stage is not None:
            push.stage.held_up = False
        if not self._pushes.chunk(push, data, crc32c, stream.window.release):
            stream.window.release()

    def _throttled(self, incarnation: Incarnation) -> Callable[[], None]:
        loop = asyncio.get_running_loop()
        last_s = 0.0

        def heard() -> None:
            nonlocal last_s
            if loop.time() - last_s >= HEARD_EVERY_S:
                last_s = loop.time()
                self._post(Heard(incarnation, progress=True))

        return heard
