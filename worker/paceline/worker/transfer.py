"""Moves the bytes of versions and contributions on one long-lived Transfer stream, on a channel of its own.

All of it runs on the communication thread's loop. What is asked for stays asked for: when the stream breaks, a new one
is opened and pulls and pushes begin again, until they are answered or dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections import deque
from dataclasses import dataclass
from typing import Protocol

import grpc
import grpc.aio

from paceline.access import OPEN, Access
from paceline.errors import PacelineError, ProtocolError
from paceline.protos import coordinator_pb2 as pb
from paceline.protos.channels import metadata, open_aio_channel
from paceline.protos.framing import PROTOCOL_VERSION, ChunkSize, crc32c, frame_chunk, parse_chunk
from paceline.worker.retry import Retry

_METHOD = "/paceline.v1.Coordinator/Transfer"
# How a stream that broke shows: an error of gRPC's, a write after its end, or bytes that are none of ours.
BROKEN: tuple[type[Exception], ...] = (grpc.RpcError, asyncio.InvalidStateError, ProtocolError)
_Call = grpc.aio.StreamStreamCall[bytes, bytes]


class PullState(enum.Enum):
    """What became of a pull."""

    WAITING = "waiting"
    DONE = "done"
    GONE = "gone"
    DROPPED = "dropped"


@dataclass(slots=True, eq=False)
class Pull:
    """A version, or the constants, on their way into `target`, which is written until the state says otherwise."""

    target: memoryview
    version: int = 0
    constants: bool = False
    received: int = 0
    state: PullState = PullState.WAITING

    @property
    def ended(self) -> bool:
        """Tell whether its target is written no more."""
        return self.state is not PullState.WAITING


@dataclass(slots=True, eq=False)
class Push:
    """A contribution on its way out of `source`, which is read until the push was answered or dropped."""

    manifest: pb.Manifest
    source: memoryview
    sent: int = 0


class TransferHandler(Protocol):
    """Who hears of the ends; called on the loop."""

    def pull_ended(self, pull: Pull) -> None:
        """Look at the pull's state."""

    def push_answered(self, result: pb.PushResult) -> None:
        """Hear the server's answer to a push."""


class DamagedChunkError(ProtocolError):
    """A chunk does not have its checksum: it is asked for again."""


class Transfer:
    """One worker's pulls and pushes.

    Thread-safety: none; only the loop's thread may call it.
    """

    def __init__(self, server: str, incarnation: str, handler: TransferHandler, access: Access = OPEN) -> None:
        self._server = server
        self._access = access
        self._incarnation = incarnation
        self._handler = handler
        self._pull: Pull | None = None
        self._pushes: dict[int, Push] = {}
        self._messages: deque[bytes] = deque()
        self._granted: deque[Push] = deque()
        self._work = asyncio.Event()
        self._retry = Retry(Retry.endless)
        self._stream: asyncio.Task[None] | None = None
        self._attached = False
        self._size = ChunkSize()

    def pull(self, pull: Pull) -> None:
        """Begin a pull; there is one at a time."""
        self._pull = pull
        self._say(_request(pull))

    def push(self, push: Push) -> None:
        """Begin a push."""
        self._pushes[push.manifest.lease] = push
        self._say(pb.TransferUp(push=push.manifest))

    def drop_pull(self, pull: Pull) -> None:
        """Give up a pull: when this returns, its target is written no more."""
        if self._pull is pull:
            self._end_pull(PullState.DROPPED)
            self._reset()

    def drop_push(self, lease: int) -> None:
        """Give up a push: when this returns, its source is read no more."""
        if self._pushes.pop(lease, None) is not None:
            self._reset()

    def drop_all(self) -> None:
        """Give up everything."""
        if self._pull is not None:
            self._end_pull(PullState.DROPPED)
        self._pushes.clear()
        self._reset()

    async def run(self) -> None:
        """Open a stream whenever there is something to move, for ever."""
        while True:
            await self._work.wait()
            self._stream = asyncio.create_task(self._converse(), name="transfer")
            try:
                await asyncio.wait({self._stream})
            finally:
                self._stream.cancel()
            broke = not self._stream.cancelled()
            if broke:
                _raise_unless_broken(self._stream.exception())
            self._stream = None
            if self._pull is None and not self._pushes:
                self._work.clear()
                continue
            self._work.set()
            if broke:
                await asyncio.sleep(self._retry.next_delay_s(asyncio.get_running_loop().time()))

    # ---- one stream -------------------------------------------------------------------------------------------

    async def _converse(self) -> None:
        self._messages.clear()
        self._granted.clear()
        async with open_aio_channel(self._server, self._access) as channel:
            call: _Call = channel.stream_stream(_METHOD)(metadata=metadata(self._access))
            attach = pb.Attach(protocol_version=PROTOCOL_VERSION, incarnation=self._incarnation)
            await call.write(pb.TransferUp(attach=attach).SerializeToString())
            self._ask_again()
            self._attached = True
            writer = asyncio.create_task(self._write(call), name="transfer-writer")
            try:
                while isinstance(message := await call.read(), bytes):
                    self._received(message)
            finally:
                self._attached = False
                writer.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await writer

    def _ask_again(self) -> None:
        """Ask a new stream for all that is outstanding."""
        if self._pull is not None:
            self._pull.received = 0
            self._queue(_request(self._pull))
        for push in self._pushes.values():
            push.sent = 0
            self._queue(pb.TransferUp(push=push.manifest))

    async def _write(self, call: _Call) -> None:
        """Write what is queued; between two chunks of a push, requests go first."""
        try:
            while True:
                while self._messages:
                    await call.write(self._messages.popleft())
                if self._granted:
                    await self._write_chunk(call, self._granted[0])
                    continue
                self._work.clear()
                await self._work.wait()
        except BROKEN:
            # The reader hears of it too, and with a status.
            return
        except Exception:
            call.cancel()
            raise

    async def _write_chunk(self, call: _Call, push: Push) -> None:
        if self._pushes.get(push.manifest.lease) is not push:
            self._granted.popleft()
        elif push.sent < len(push.source):
            start = push.sent
            push.sent = min(start + self._size.bytes, len(push.source))
            loop = asyncio.get_running_loop()
            began_s = loop.time()
            await call.write(frame_chunk(push.source[start : push.sent]))
            self._size.wrote(loop.time() - began_s)
        else:
            self._granted.popleft()
            await call.write(pb.TransferUp(push_done=pb.PushDone(lease=push.manifest.lease)).SerializeToString())

    def _received(self, message: bytes) -> None:
        chunk = parse_chunk(message)
        if chunk is not None:
            self._chunk(*chunk)
            return
        down = pb.TransferDown.FromString(message)
        match down.WhichOneof("message"):
            case "pull_begin":
                self._pull_begin(down.pull_begin)
            case "pull_gone":
                if self._pull is not None and not self._pull.constants and self._pull.version == down.pull_gone.version:
                    self._end_pull(PullState.GONE)
            case "push_granted":
                push = self._pushes.get(down.push_granted.lease)
                if push is not None:
                    self._retry.reset()
                    self._granted.append(push)
                    self._work.set()
            case "push_result":
                self._retry.reset()
                self._pushes.pop(down.push_result.lease, None)
                self._handler.push_answered(down.push_result)

    def _pull_begin(self, begin: pb.PullBegin) -> None:
        pull = self._pull
        if pull is not None and begin.total_bytes != len(pull.target):
            what = "the constants" if begin.constants else f"version {begin.version}"
            raise PacelineError(f"the server sends {begin.total_bytes} bytes for {what}: expected {len(pull.target)}")

    def _chunk(self, content: memoryview, checksum: int) -> None:
        pull = self._pull
        if pull is None:
            return
        if crc32c(content) != checksum:
            raise DamagedChunkError(f"a chunk at byte {pull.received} of a pull came damaged")
        end = pull.received + len(content)
        if end > len(pull.target):
            raise ProtocolError(f"a pull gave {end} bytes or more: expected {len(pull.target)}")
        pull.target[pull.received : end] = content
        pull.received = end
        if end == len(pull.target):
            self._end_pull(PullState.DONE)

    def _end_pull(self, state: PullState) -> None:
        pull, self._pull = self._pull, None
        if pull is not None:
            self._retry.reset()
            pull.state = state
            self._handler.pull_ended(pull)

    def _say(self, message: pb.TransferUp) -> None:
        """Ask for something; where no stream is open, its opening will ask."""
        if self._attached:
            self._queue(message)
        self._work.set()

    def _queue(self, message: pb.TransferUp) -> None:
        self._messages.append(message.SerializeToString())

    def _reset(self) -> None:
        """Break the stream off, since what was asked on it cannot be taken back."""
        if self._stream is not None:
            self._stream.cancel()
        self._attached = False
        if self._pushes or self._pull is not None:
            self._work.set()


def _raise_unless_broken(error: BaseException | None) -> None:
    if error is not None and not isinstance(error, BROKEN):
        raise error


def _request(pull: Pull) -> pb.TransferUp:
    return pb.TransferUp(pull=pb.PullRequest(version=pull.version, constants=pull.constants))
