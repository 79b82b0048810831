"""A client that means no good: from an address of its own, through a forwarder, since gRPC cannot choose its source."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
import grpc.aio

from paceline.protos.framing import channel_options

# Another address than the good workers' 127.0.0.1; all of 127.0.0.0/8 is this machine.
SOURCE = "127.0.0.2"
STREAMS_PER_CHANNEL = 10


@contextlib.asynccontextmanager
async def forwarded(target: str, source: str = SOURCE) -> AsyncIterator[str]:
    """Forward connections to a target, from another address."""
    host, _, port = target.rpartition(":")

    links: set[asyncio.Task[Any]] = set()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.transport.abort()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        links.add(task)
        far_reader, far_writer = await asyncio.open_connection(host, int(port), local_addr=(source, 0))
        try:
            await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))
        finally:
            for side in (writer, far_writer):
                side.transport.abort()
                with contextlib.suppress(OSError):
                    await side.wait_closed()
            links.discard(task)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        if links:
            # Their channels are closed: what is left ends by itself.
            await asyncio.wait(links, timeout=10.0)


@contextlib.asynccontextmanager
async def idle_sessions(address: str, count: int, method: str = "Session") -> AsyncIterator[list[Any]]:
    """Open streams that say nothing, ten on each connection, without any deserialiser."""
    channels = [
        grpc.aio.insecure_channel(address, options=channel_options()) for _ in range(-(-count // STREAMS_PER_CHANNEL))
    ]
    calls: list[Any] = [
        # A connection that a busy machine did not make in time is tried again: it is no refusal.
        channels[number % len(channels)].stream_stream(f"/paceline.v1.Coordinator/{method}")(wait_for_ready=True)
        for number in range(count)
    ]
    try:
        yield calls
    finally:
        # A connection lasts as long as a call of it is known here.
        calls.clear()
        for channel in channels:
            await channel.close()


async def codes(calls: Iterable[Any], within_s: float, enough: int = 0) -> Counter[str]:
    """Count how calls ended within a time, or until only so many (`enough`) have not; these are "open"."""

    async def end_of(call: Any) -> grpc.StatusCode:
        with contextlib.suppress(grpc.RpcError):
            while await call.read() is not grpc.aio.EOF:
                pass
        code: grpc.StatusCode = await call.code()
        return code

    loop = asyncio.get_running_loop()
    until_s = loop.time() + within_s
    waiting = {asyncio.ensure_future(end_of(call)) for call in calls}
    done: set[asyncio.Future[grpc.StatusCode]] = set()
    while len(waiting) > enough and loop.time() < until_s:
        ended, waiting = await asyncio.wait(waiting, timeout=until_s - loop.time(), return_when=asyncio.FIRST_COMPLETED)
        done |= ended
    for task in waiting:
        task.cancel()
    return Counter(task.result().name for task in done) + Counter({"open": len(waiting)})
