"""Peers of whom nothing is known cost little: they have few seats, little time, and small messages."""

from __future__ import annotations

import asyncio
import secrets
import time
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from paceline.access import OPEN
from paceline.protos import coordinator_pb2 as pb
from paceline.protos.channels import open_aio_channel
from paceline.protos.coordinator_pb2_grpc import CoordinatorStub
from paceline.protos.framing import CHUNK_BYTES, PROTOCOL_VERSION, STREAMS_PER_CONNECTION
from paceline.server import sessions, transfer
from paceline.server.sessions import HELLO_BYTES
from paceline.server.waiting import PER_ADDRESS
from tests.server.raw_worker import LIMIT_S, RawWorker, Run, serving, settings
from tests.system.hostile import codes, forwarded, idle_sessions


def session_on(channel: grpc.aio.Channel) -> Any:
    """Open a Session stream of bytes."""
    return channel.stream_stream("/paceline.v1.Coordinator/Session")()


def hello(name: str = "w1") -> bytes:
    said = pb.Hello(protocol_version=PROTOCOL_VERSION, name=name, incarnation=secrets.token_hex(16))
    return pb.WorkerMessage(hello=said).SerializeToString()


async def sessions_open(run: Run, count: int) -> None:
    """Wait until the server has so many, refused ones not counted."""
    deadline_s = time.monotonic() + LIMIT_S
    while (found := len(run.server._parts.sessions._open)) != count:
        assert time.monotonic() < deadline_s, f"{found} are open: expected {count}"
        await asyncio.sleep(0.01)


async def test_an_address_has_so_many_silent_sessions_and_other_addresses_are_not_hindered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "HELLO_LIMIT_S", 10 * LIMIT_S)
    async with (
        serving(settings(tmp_path)) as run,
        forwarded(run.address) as from_elsewhere,
        idle_sessions(from_elsewhere, PER_ADDRESS + 20) as calls,
    ):
        ended = await codes(calls, LIMIT_S, enough=PER_ADDRESS)
        assert ended == {"RESOURCE_EXHAUSTED": 20, "open": PER_ADDRESS}
        async with RawWorker(run.address) as worker:
            await worker.join()
            await worker.work()
            await worker.work()
            assert (await worker.hear("goodbye")).outcome == pb.RUN_OUTCOME_DONE
        await run.end()


async def test_seats_of_sessions_that_are_gone_are_free_again(tmp_path: Path) -> None:
    async with serving(settings(tmp_path)) as run:
        for _ in range(3):
            async with idle_sessions(run.address, PER_ADDRESS):
                await sessions_open(run, PER_ADDRESS)
            await sessions_open(run, 0)


async def test_a_worker_that_said_hello_takes_no_seat(tmp_path: Path) -> None:
    async with serving(settings(tmp_path)) as run, RawWorker(run.address) as worker:
        await worker.join()
        async with idle_sessions(run.address, PER_ADDRESS):
            await sessions_open(run, 1 + PER_ADDRESS)


@pytest.mark.parametrize("method", ["Session", "Transfer"])
async def test_who_says_nothing_is_sent_away_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(sessions, "HELLO_LIMIT_S", 0.2)
    monkeypatch.setattr(transfer, "ATTACH_LIMIT_S", 0.2)
    async with serving(settings(tmp_path)) as run, idle_sessions(run.address, 20, method) as calls:
        expected = "OK" if method == "Session" else "DEADLINE_EXCEEDED"
        assert await codes(calls, LIMIT_S) == {expected: 20}


def test_the_time_for_a_hello_is_five_seconds() -> None:
    assert (sessions.HELLO_LIMIT_S, transfer.ATTACH_LIMIT_S) == (5.0, 5.0)


async def test_a_first_message_of_more_than_64_kb_is_refused_unread(tmp_path: Path) -> None:
    async with serving(settings(tmp_path)) as run, RawWorker(run.address) as worker:
        await worker.say(hello=worker.hello(host="x" * HELLO_BYTES))
        refused = await worker.hear("refused")
        assert refused.code == pb.REFUSAL_CODE_BAD_HELLO
        assert f"expected a hello of at most {HELLO_BYTES}" in refused.reason
        await worker.hear_the_end()
        stream = worker.transfer().stream
        await stream.write(pb.TransferUp(attach=pb.Attach(incarnation="0" * 2000)).SerializeToString())
        assert await stream.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "expected an attach of at most" in await stream.details()


@pytest.mark.parametrize("garbage", [b"", b"\x00", b"\xff" * 100, secrets.token_bytes(1000)])
async def test_what_is_no_message_is_refused_as_such(tmp_path: Path, garbage: bytes) -> None:
    async with serving(settings(tmp_path)) as run, open_aio_channel(run.address, OPEN) as channel:
        call = session_on(channel)
        await call.write(garbage)
        answer = pb.ServerMessage.FromString(await call.read())
        assert answer.refused.code == pb.REFUSAL_CODE_BAD_HELLO
        assert await call.read() is grpc.aio.EOF
        assert not (await run.status()).workers


async def test_garbage_after_the_hello_ends_its_session_alone(tmp_path: Path) -> None:
    async with serving(settings(tmp_path, rounds=1000)) as run, RawWorker(run.address, "w2") as other:
        await other.join()
        async with open_aio_channel(run.address, OPEN) as channel:
            call = session_on(channel)
            await call.write(hello())
            assert pb.ServerMessage.FromString(await call.read()).WhichOneof("message") == "welcome"
            await call.write(b"\xff" * 10)
            assert pb.ServerMessage.FromString(await call.read()).refused.reason == "a message is no WorkerMessage"
        for _ in range(3):
            assert (await other.work()).verdict == pb.PUSH_VERDICT_ACCEPTED


async def test_no_message_is_larger_than_any_worker_needs(tmp_path: Path) -> None:
    async with serving(settings(tmp_path)) as run, RawWorker(run.address) as worker:
        await worker.join()
        stream = worker.transfer().stream
        await stream.write(bytes(3 * CHUNK_BYTES))
        async with asyncio.timeout(LIMIT_S):
            assert await stream.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        # The largest chunk is taken: the stream ends for its want of an attach, not for its size.
        stream = worker.transfer().stream
        await stream.write(bytes(CHUNK_BYTES + 20))
        assert await stream.code() is grpc.StatusCode.INVALID_ARGUMENT
        await worker.hear("lease")


async def test_a_connection_has_so_many_streams(tmp_path: Path) -> None:
    async with serving(settings(tmp_path)) as run, open_aio_channel(run.address, OPEN) as channel:
        # From here on the client knows the limit, and holds further streams back.
        await CoordinatorStub(channel).Status(pb.StatusRequest(), timeout=LIMIT_S)
        calls = [session_on(channel) for _ in range(STREAMS_PER_CONNECTION + 4)]
        answers = [asyncio.ensure_future(call.read()) for call in calls]
        writes = [asyncio.ensure_future(call.write(hello(f"w{number}"))) for number, call in enumerate(calls)]
        # All that come at all come within this time.
        done, waiting = await asyncio.wait(answers, timeout=2.0)
        for task in (*writes, *waiting):
            task.cancel()
        assert (len(done), len(waiting)) == (STREAMS_PER_CONNECTION, 4)
