"""A worker that says exactly what a test wants it to say: the wire protocol by hand, over real gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest

from paceline.access import OPEN, Access
from paceline.flat import FlatModel, build_model
from paceline.layout import ContributionLayout, contribution_layout
from paceline.loading import load_job
from paceline.protos import coordinator_pb2 as pb
from paceline.protos.channels import metadata, open_aio_channel
from paceline.protos.coordinator_pb2_grpc import CoordinatorStub
from paceline.protos.framing import CHUNK_BYTES, PROTOCOL_VERSION, channel_options, crc32c, frame_chunk, parse_chunk
from paceline.server import RunResult, Server, prepare
from paceline.settings import RunSettings

LIMIT_S = 20.0
JOB = "tests/jobs.py:Tiny"


def settings(run_dir: Path, **changes: Any) -> RunSettings:
    """Settings of a small run on a free port: 2 tasks a round, which one worker gets together."""
    values: dict[str, Any] = {
        "job": JOB,
        "bind": "127.0.0.1:0",
        "run_dir": run_dir,
        "policy": "uniform",
        "tasks": 2,
        "rounds": 2,
    }
    return RunSettings(**{**values, "micro_batch": 4, **changes})


class Run:
    """A server in this process, served to its end in a task of its own."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.address = str(server.address)
        self.over = asyncio.Event()
        self._task = asyncio.create_task(self._serve())

    async def end(self) -> RunResult:
        """Wait for the end of the run and give its result."""
        return await asyncio.wait_for(asyncio.shield(self._task), LIMIT_S)

    @property
    def ended(self) -> bool:
        """The run is over and all is taken down."""
        return self._task.done()

    async def _serve(self) -> RunResult:
        finish = await self.server.wait()
        self.over.set()
        return await self.server.close(finish)

    async def status(self) -> pb.StatusResponse:
        """Ask as `paceline status` does."""
        async with grpc.aio.insecure_channel(self.address, options=channel_options()) as channel:
            answer: pb.StatusResponse = await CoordinatorStub(channel).Status(pb.StatusRequest(), timeout=LIMIT_S)
            return answer


@contextlib.asynccontextmanager
async def serving(run_settings: RunSettings) -> AsyncIterator[Run]:
    """Serve a run; one that is still going on at the end is interrupted."""
    server = Server(run_settings, prepare(run_settings))
    await server.start()
    run = Run(server)
    try:
        yield run
    finally:
        if not run.ended:
            server.stop("the test is over")
            await run.end()


class RawWorker:
    """One incarnation. `join` brings it to where leases come."""

    def __init__(self, address: str, name: str = "w1", job: str = JOB, access: Access = OPEN) -> None:
        self.name = name
        self.metadata = metadata(access)
        self.incarnation = secrets.token_hex(16)
        self.welcome = pb.Welcome()
        self.layout, self.flat = layout_of(job)
        self._channel = open_aio_channel(address, access)
        self._data_channel = open_aio_channel(address, access)
        self._unheard: list[pb.ServerMessage] = []
        self.open_session()

    async def __aenter__(self) -> RawWorker:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stream.cancel()
        await self._channel.close()
        await self._data_channel.close()

    # ---- session -----------------------------------------------------------------------------------------------------

    async def say(self, **message: Any) -> None:
        """Send one WorkerMessage, given by its kind."""
        async with asyncio.timeout(LIMIT_S):
            await self.stream.write(pb.WorkerMessage(**message))

    async def hear(self, kind: str) -> Any:
        """Give the next message of a kind; others that come before it stay to be heard."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                for place, message in enumerate(self._unheard):
                    if message.WhichOneof("message") == kind:
                        return getattr(self._unheard.pop(place), kind)
                message = await self.stream.read()
                assert message is not grpc.aio.EOF, f"the stream ended before a {kind} came"
                # Answers to accepted pushes may travel with another message; here each is one of its own.
                self._unheard += [pb.ServerMessage(push_result=result) for result in message.accepted]
                self._unheard.append(message)

    async def receive(self) -> pb.ServerMessage:
        """Give the next message as it came."""
        async with asyncio.timeout(LIMIT_S):
            message: pb.ServerMessage = await self.stream.read()
            return message

    async def hear_the_end(self) -> None:
        """Wait until the server ends the stream."""
        async with asyncio.timeout(LIMIT_S):
            while await self.stream.read() is not grpc.aio.EOF:
                pass

    def hello(self, **changes: Any) -> pb.Hello:
        """Make a hello."""
        values: dict[str, Any] = {"protocol_version": PROTOCOL_VERSION, "package_version": "1", "name": self.name}
        values |= {"incarnation": self.incarnation, "host": "test", "pid": 1, "device": "cpu"}
        return pb.Hello(**{**values, **changes})

    async def join(self, **changes: Any) -> None:
        """Say hello, then ready with the server's own fingerprint."""
        await self.say(hello=self.hello(**changes))
        self.welcome = await self.hear("welcome")
        await self.say(ready=pb.Ready(job_fingerprint_json=self.welcome.job_fingerprint_json))

    def drop_session(self) -> None:
        """Cut the control stream."""
        self.stream.cancel()
        self._unheard.clear()

    def open_session(self) -> None:
        """Open a control stream."""
        self.stream: Any = self._channel.stream_stream(
            "/paceline.v1.Coordinator/Session", pb.WorkerMessage.SerializeToString, pb.ServerMessage.FromString
        )(metadata=self.metadata)

    # ---- contributions -----------------------------------------------------------------------------------------------

    def payload(self, value: float = 0.0) -> bytes:
        """Make a contribution of float32 sums, all of one value."""
        return np.full(self.layout.nbytes // 4, value, np.float32).tobytes()

    def manifest(self, given: pb.Lease, **changes: Any) -> pb.Manifest:
        """Describe a contribution of all of a lease's tasks."""
        tasks = task_ids(given.tasks)
        segments = [pb.SegmentInfo(name=s.name, dtype=s.dtype, bytes=s.nbytes) for s in self.layout.segments]
        values: dict[str, Any] = {
            "lease": given.lease,
            "incarnation": self.incarnation,
            "version": given.version,
            "tasks": tasks,
            "seconds": [0.001] * len(tasks),
            "loss_sums": [4.0] * len(tasks),
            "samples": [4] * len(tasks),
            "codec": pb.CODEC_IDENTITY,
            "total_bytes": self.layout.nbytes,
            "segments": segments,
        }
        return pb.Manifest(**{**values, **changes})

    def contribution(self, given: pb.Lease, payload: bytes | None = None, **changes: Any) -> pb.Contribution:
        """Make a contribution that travels inside a message."""
        data = self.payload() if payload is None else payload
        return pb.Contribution(manifest=self.manifest(given, **changes), payload=data, payload_crc32c=crc32c(data))

    async def push(self, contribution: pb.Contribution) -> pb.PushResult:
        """Send a contribution on the session and give its result."""
        await self.say(contribution=contribution)
        result: pb.PushResult = await self.hear("push_result")
        return result

    async def work(self) -> pb.PushResult:
        """Do the next lease properly."""
        return await self.push(self.contribution(await self.hear("lease")))

    def transfer(self) -> RawTransfer:
        """Open a data stream."""
        return RawTransfer(self, self._data_channel)


class RawTransfer:
    """One Transfer stream, raw bytes both ways."""

    def __init__(self, worker: RawWorker, channel: grpc.aio.Channel) -> None:
        self._worker = worker
        self.stream: Any = channel.stream_stream("/paceline.v1.Coordinator/Transfer")(metadata=worker.metadata)

    async def __aenter__(self) -> RawTransfer:
        await self.say(attach=pb.Attach(protocol_version=PROTOCOL_VERSION, incarnation=self._worker.incarnation))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stream.cancel()

    async def say(self, **message: Any) -> None:
        """Send one TransferUp, given by its kind."""
        await self.send(pb.TransferUp(**message).SerializeToString())

    async def send(self, raw: bytes) -> None:
        """Send bytes as they are."""
        async with asyncio.timeout(LIMIT_S):
            await self.stream.write(raw)

    async def send_chunks(self, data: bytes) -> None:
        """Send data as chunks."""
        view = memoryview(data)
        for start in range(0, len(data), CHUNK_BYTES):
            await self.send(frame_chunk(view[start : start + CHUNK_BYTES]))

    async def receive(self) -> pb.TransferDown | memoryview:
        """Give the next message: a chunk's bytes, verified, or what else it is."""
        async with asyncio.timeout(LIMIT_S):
            raw = await self.stream.read()
        if raw is grpc.aio.EOF:
            raise AssertionError("the data stream ended")
        chunk = parse_chunk(raw)
        if chunk is None:
            return pb.TransferDown.FromString(raw)
        assert crc32c(chunk[0]) == chunk[1]
        return chunk[0]

    async def hear(self, kind: str) -> Any:
        """Give the next message of a kind; others before it are passed over."""
        while True:
            message = await self.receive()
            if isinstance(message, pb.TransferDown) and message.WhichOneof("message") == kind:
                return getattr(message, kind)

    async def code(self) -> grpc.StatusCode:
        """Wait for the end of the stream and say how it ended."""
        async with asyncio.timeout(LIMIT_S):
            code: grpc.StatusCode = await self.stream.code()
            return code

    async def pull(self, **request: Any) -> bytes:
        """Pull a version or the constants."""
        await self.say(pull=pb.PullRequest(**request))
        begin = await self.hear("pull_begin")
        got = bytearray()
        while len(got) < begin.total_bytes:
            piece = await self.receive()
            assert isinstance(piece, memoryview)
            got += piece
        return bytes(got)

    async def push(self, manifest: pb.Manifest, data: bytes) -> pb.PushResult:
        """Push as a worker should, and give the result."""
        await self.say(push=manifest)
        await self.hear("push_granted")
        await self.send_chunks(data)
        await self.say(push_done=pb.PushDone(lease=manifest.lease))
        result: pb.PushResult = await self.hear("push_result")
        return result


def layout_of(job: str, seed: int = 0) -> tuple[ContributionLayout, FlatModel]:
    """Give the contribution layout of a job's model, and the model at version 0."""
    flat = build_model(load_job(job), seed)
    return contribution_layout(flat.layout, "fast"), flat


def task_ids(ranges: Sequence[pb.TaskRange]) -> list[int]:
    """Write runs of task ids out."""
    return [task for run in ranges for task in range(run.first, run.first + run.count)]


def own_address() -> str:
    """Give an address of this machine that is not loopback; a connection to it comes from it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent
            return str(probe.getsockname()[0])
        except OSError:
            pytest.skip("this machine has no address but loopback")
