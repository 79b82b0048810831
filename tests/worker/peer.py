"""A server for tests that speaks the real protocol over real gRPC and does just what the test tells it."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import grpc

from paceline.contribution import ContributionBuffer
from paceline.fingerprint import fingerprint
from paceline.flat import build_model
from paceline.gradients import ComputeSettings, TaskRunner
from paceline.loading import build_dataset, load_job
from paceline.protos import coordinator_pb2 as pb
from paceline.protos.framing import CHUNK_BYTES, PROTOCOL_VERSION, crc32c, frame_chunk, parse_chunk, server_options
from paceline.settings import SharedSettings

WITHIN_S = 30.0

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True)
class Break:
    """Ends a stream with an error."""

    code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE


class Stream(Generic[In, Out]):
    """One stream as the test sees it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.inbox: queue.SimpleQueue[In | None] = queue.SimpleQueue()
        self._outbox: queue.SimpleQueue[Out | Break | None] = queue.SimpleQueue()

    def send(self, message: Out) -> None:
        self._outbox.put(message)

    def end(self, how: Break | None = None) -> None:
        """End the stream, orderly or not."""
        self._outbox.put(how)

    def next(self) -> In | None:
        """Give the next message, None at the worker's end of the stream."""
        return self.inbox.get(timeout=WITHIN_S)

    def serve(self, requests: Iterator[In], context: grpc.ServicerContext) -> Iterator[Out]:
        def read() -> None:
            try:
                for message in requests:
                    self.inbox.put(message)
            except Exception:  # the worker cut the stream
                pass
            self.inbox.put(None)

        threading.Thread(target=read, daemon=True).start()
        context.add_callback(lambda: self._outbox.put(None))
        while (item := self._outbox.get()) is not None:
            if isinstance(item, Break):
                context.abort(item.code, "the test breaks it")
            else:
                yield item


class Session(Stream[pb.WorkerMessage, pb.ServerMessage]):
    """A worker's control stream."""

    def expect(self, kind: str) -> Any:
        """Give the next message, which must be of a kind; heartbeats apart."""
        while True:
            message = self.next()
            assert message is not None, f"the stream ended: expected {kind}"
            found = message.WhichOneof("message")
            if found == kind:
                return getattr(message, kind)
            assert found == "heartbeat", f"expected {kind}, got {message}"

    def quiet(self) -> bool:
        """Tell whether nothing but heartbeats has come."""
        while not self.inbox.empty():
            message = self.inbox.get()
            if message is None or message.WhichOneof("message") != "heartbeat":
                return False
        return True

    def say(self, **parts: Any) -> None:
        self.send(pb.ServerMessage(**parts))

    def accept(self, lease: int) -> None:
        self.say(push_result=pb.PushResult(lease=lease, verdict=pb.PUSH_VERDICT_ACCEPTED))

    def goodbye(self, outcome: pb.RunOutcome, reason: str = "") -> None:
        self.say(goodbye=pb.Goodbye(outcome=outcome, reason=reason))
        self.end()


class TransferStream(Stream[bytes, bytes]):
    """A worker's data stream."""

    def expect(self, kind: str) -> Any:
        message = self.next()
        assert message is not None, f"the stream ended: expected {kind}"
        assert parse_chunk(message) is None, f"expected {kind}, got a chunk"
        up = pb.TransferUp.FromString(message)
        assert up.WhichOneof("message") == kind, f"expected {kind}, got {up}"
        return getattr(up, kind)

    def chunks(self, total_bytes: int) -> bytes:
        """Take the chunks of a push."""
        content = b""
        while len(content) < total_bytes:
            message = self.next()
            parsed = parse_chunk(message) if message else None
            assert parsed is not None, "expected a chunk"
            assert crc32c(parsed[0]) == parsed[1]
            content += parsed[0]
        return content

    def say(self, **parts: Any) -> None:
        self.send(pb.TransferDown(**parts).SerializeToString())

    def send_image(
        self, image: bytes, *, constants: bool = False, damaged: bool = False, up_to_bytes: int | None = None
    ) -> None:
        begin = pb.PullBegin(constants=constants, total_bytes=len(image))
        self.say(pull_begin=begin)
        view = memoryview(image)
        for start in range(0, len(image) if up_to_bytes is None else up_to_bytes, CHUNK_BYTES):
            frame = bytearray(frame_chunk(view[start : start + CHUNK_BYTES]))
            if damaged:
                frame[-6] ^= 1
            self.send(bytes(frame))


class Peer:
    """The server. Sessions and transfer streams are handed to the test as they are opened."""

    def __init__(self) -> None:
        self.sessions: queue.SimpleQueue[Session] = queue.SimpleQueue()
        self.transfers: queue.SimpleQueue[TransferStream] = queue.SimpleQueue()
        self._server: grpc.Server | None = None
        self.port = self.start(0)
        self.address = f"127.0.0.1:{self.port}"

    def start(self, port: int) -> int:
        self._server = grpc.server(ThreadPoolExecutor(16), options=server_options(16 << 20))
        handlers = {
            "Session": grpc.stream_stream_rpc_method_handler(
                self._session,
                request_deserializer=pb.WorkerMessage.FromString,
                response_serializer=pb.ServerMessage.SerializeToString,
            ),
            "Transfer": grpc.stream_stream_rpc_method_handler(self._transfer),
        }
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("paceline.v1.Coordinator", handlers),)
        )
        bound = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self._server.start()
        return bound

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop(0).wait()

    def session(self) -> Session:
        return self.sessions.get(timeout=WITHIN_S)

    def transfer(self) -> TransferStream:
        """Take the next data stream, and its attach."""
        stream = self.transfers.get(timeout=WITHIN_S)
        attach = stream.expect("attach")
        assert attach.protocol_version == PROTOCOL_VERSION
        assert len(attach.incarnation) == 32
        return stream

    def _session(self, requests: Iterator[pb.WorkerMessage], context: grpc.ServicerContext) -> Iterator[Any]:
        session = Session(context.peer())
        self.sessions.put(session)
        yield from session.serve(requests, context)

    def _transfer(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[Any]:
        stream = TransferStream(context.peer())
        self.transfers.put(stream)
        yield from stream.serve(requests, context)


class ServerSide:
    """A server's side of a job: its welcome, versions, and what contributions must be.

    It shares torch's generators with a worker in the same process: nothing here may compute while the worker does.
    """

    def __init__(self, spec: str, **settings: Any) -> None:
        self.shared = SharedSettings(**settings)
        self.job = load_job(spec)
        self.dataset = build_dataset(self.job, self.shared.seed, self.shared.micro_batch)
        self.flat = build_model(self.job, self.shared.seed)
        shared = self.shared
        compute = ComputeSettings(
            seed=shared.seed, micro_batch=shared.micro_batch, micro_steps=shared.micro_steps, sums=shared.sums
        )
        self.runner = TaskRunner(self.job, self.flat, self.dataset, compute)
        self.images = {0: bytes(self.flat.version_view)}

    def welcome(self, *, resumed: bool = False, inline_constants: bool = True) -> pb.ServerMessage:
        constants = bytes(self.flat.constants_view)
        return pb.ServerMessage(
            welcome=pb.Welcome(
                protocol_version=PROTOCOL_VERSION,
                package_version="test",
                resumed=resumed,
                job="a job",
                settings_json=self.shared.model_dump_json(),
                job_fingerprint_json=self.fingerprint_json(),
                version_bytes=self.flat.layout.version_nbytes,
                constants_bytes=len(constants),
                constants=constants if inline_constants else b"",
                constants_crc32c=crc32c(constants),
            )
        )

    def fingerprint_json(self) -> str:
        return fingerprint(self.job, self.flat.layout, self.dataset, self.shared.seed).to_json()

    def version(self, number: int, scale: float) -> bytes:
        """Make another version: all parameters scaled."""
        self.flat.version_view[:] = self.images[0]
        for _, _, parameters in self.flat.trainable():
            for parameter in parameters:
                parameter.data.mul_(scale)
        self.images[number] = bytes(self.flat.version_view)
        return self.images[number]

    def lease(
        self,
        lease: int,
        tasks: list[int],
        *,
        version: int = 0,
        inline: bool = True,
        in_advance: bool = True,
        **more: Any,
    ) -> pb.ServerMessage:
        image = self.images[version] if inline else b""
        return pb.ServerMessage(
            lease=pb.Lease(
                lease=lease,
                version=version,
                tasks=ranges(tasks),
                keep_in_advance=in_advance,
                push_unasked=in_advance,
                state=image,
                state_crc32c=crc32c(image),
                **more,
            )
        )

    def contribution(self, tasks: list[int], version: int = 0) -> bytes:
        """Compute what a worker must push."""
        total: ContributionBuffer = self.runner.new_sum()
        self.flat.version_view[:] = self.images[version]
        self.runner.adopt_version()
        for task in tasks:
            gradient = self.runner.compute(self.runner.load(task))
            assert gradient is not None
            self.runner.accumulate(total, gradient)
        return bytes(total.host_view)

    def gives(self, payload: bytes, tasks: list[int], version: int = 0) -> bool:
        """Tell whether a payload is what the tasks give; pytest would take minutes to show where two images differ."""
        return payload == self.contribution(tasks, version)


def ranges(tasks: list[int]) -> list[pb.TaskRange]:
    return [pb.TaskRange(first=task, count=1) for task in tasks]


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition that nothing announces."""
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come about"
        time.sleep(0.002)
