"""A TCP proxy between a worker and its server that can hold, cut or delay connections: faults with a count."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(eq=False)
class Link:
    """One proxied connection. `number` counts from 0 in the order of opening; `up_bytes` came from the worker."""

    number: int
    writers: tuple[asyncio.StreamWriter, asyncio.StreamWriter]
    up_bytes: int = 0
    flow: asyncio.Event = field(default_factory=asyncio.Event)
    open: bool = True


class Proxy:
    """Forwards 127.0.0.1:port to a target; its own thread and loop. Use as a context manager.

    Args:
        target: HOST:PORT.
        delay_s: of all bytes, each way.
    """

    def __init__(self, target: str, delay_s: float = 0.0) -> None:
        self._delay_s = delay_s
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._server: asyncio.Server | None = None
        self._hold_rule: Callable[[Link], bool] | None = None
        self.links: list[Link] = []
        self.cuts = 0
        self.delayed = 0
        self.address = ""

    def __enter__(self) -> Proxy:
        self._thread.start()
        self._call(self._open())
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def hold_when(self, rule: Callable[[Link], bool]) -> None:
        """Stop forwarding what comes from the worker on a link for which the rule holds, until released."""
        self._hold_rule = rule

    def held(self) -> list[Link]:
        return [link for link in self.links if link.open and not link.flow.is_set()]

    def release(self) -> None:
        self._hold_rule = None
        for link in self.links:
            self._loop.call_soon_threadsafe(link.flow.set)

    def cut(self, link: Link) -> None:
        """Break one connection on both sides, at once."""

        async def act() -> None:
            for writer in link.writers:
                writer.transport.abort()

        self._call(act())
        self.cuts += 1

    def _call(self, work: object) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)  # type: ignore[arg-type]

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        for link in self.links:
            link.flow.set()
            for writer in link.writers:
                writer.transport.abort()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        link = Link(len(self.links), (writer, far_writer))
        link.flow.set()
        self.links.append(link)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(self._up(link, reader, far_writer), self._down(far_reader, writer))
        link.open = False

    async def _up(self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(16384):
                link.up_bytes += len(data)
                rule = self._hold_rule
                if rule is not None and rule(link):
                    link.flow.clear()
                await link.flow.wait()
                await self._forward(writer, data)
        self._loop.call_later(self._delay_s, writer.transport.abort)

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._forward(writer, data)
        self._loop.call_later(self._delay_s, writer.transport.abort)

    async def _forward(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        if self._delay_s:
            # Bytes that follow are on their way meanwhile; calls of the same delay keep their order.
            self._loop.call_later(self._delay_s, writer.write, data)
            self.delayed += 1
        else:
            writer.write(data)
            await writer.drain()
