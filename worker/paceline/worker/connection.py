"""Keeps a worker's session with its server alive, on one background thread with a loop of its own.

Everything of gRPC is touched on that thread only. A broken session is resumed with growing pauses; what was queued for
it is dropped, since its handler says all that matters again once it is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import grpc
import grpc.aio

from paceline.access import OPEN, Access
from paceline.errors import RefusedError, UnavailableError
from paceline.protos import coordinator_pb2 as pb
from paceline.protos import coordinator_pb2_grpc as pb_grpc
from paceline.protos.channels import handshake_problem, metadata, open_aio_channel
from paceline.worker.retry import Retry, limit_s
from paceline.worker.transfer import BROKEN, Transfer, TransferHandler

# The server asks the holder of a claimed name first (2 s); a busy one may take its time.
_WELCOME_WITHIN_S = 30.0
_JOIN_THREAD_S = 5.0
_REFUSED = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)

_Call = grpc.aio.StreamStreamCall[pb.WorkerMessage, pb.ServerMessage]
_ENDED: tuple[type[Exception], ...] = (*BROKEN, TimeoutError)


class SessionHandler(TransferHandler, Protocol):
    """Who speaks and listens; called on the communication thread."""

    def hello(self) -> pb.Hello:
        """Open a session."""

    def over(self) -> bool:
        """Tell whether there is nothing more to be said."""

    def welcomed(self, welcome: pb.Welcome) -> list[pb.WorkerMessage]:
        """Take a welcome, and say what has to be said (again)."""

    def received(self, message: pb.ServerMessage) -> pb.WorkerMessage | None:
        """Take any other message, and answer it."""

    def heartbeat_s(self) -> float:
        """Give the seconds between signs of life."""

    def heartbeat(self) -> pb.WorkerMessage:
        """Make one."""

    def unreachable(self) -> None:
        """The session broke, or none came about; it will be tried again."""

    def failed(self, error: BaseException) -> None:
        """There will be no further session."""


class Connection:
    """The communication thread.

    Args:
        server: HOST:PORT.
        incarnation: of this worker.
        handler: speaks and listens.
        patience_s: how long to look for a server that cannot be reached.
        access: certificates and token.
    """

    def __init__(
        self, server: str, incarnation: str, handler: SessionHandler, patience_s: float, access: Access = OPEN
    ) -> None:
        self._server = server
        self._access = access
        self._problem: str | None = None
        self._incarnation = incarnation
        self._handler = handler
        self._retry = Retry(patience_s)
        self._outgoing: deque[pb.WorkerMessage] = deque()
        self._open = self._was_open = False
        self._last_write_s = 0.0
        self._thread = threading.Thread(target=self._run, name="communication", daemon=True)
        self._started = threading.Event()

    def start(self) -> None:
        """Begin; returns when send and post may be called."""
        self._thread.start()
        self._started.wait()

    def close(self) -> None:
        """End the session and the thread; also where a signal broke start off."""
        if self._thread.ident is None:
            return
        self._started.wait(_JOIN_THREAD_S)
        if self._thread.is_alive():
            self.post(self._stop.set)
            self._thread.join(_JOIN_THREAD_S)

    def post(self, call: Callable[..., object], *arguments: object) -> None:
        """Have something done on the communication thread. Thread-safety: any thread; signal handlers too."""
        with contextlib.suppress(RuntimeError):  # the loop has ended: nothing is left to be done
            self._loop.call_soon_threadsafe(call, *arguments)

    def send(self, message: pb.WorkerMessage) -> None:
        """Say something in the present session, if there is one. Thread-safety: any thread."""
        self.post(self.send_now, message)

    def send_now(self, message: pb.WorkerMessage) -> None:
        """The same, on the communication thread."""
        if self._open:
            self._outgoing.append(message)
            self._wake.set()

    # ---- the communication thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except Exception as error:
            self._handler.failed(error)
        finally:
            self._started.set()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._wake = asyncio.Event()
        self.transfer = Transfer(self._server, self._incarnation, self._handler, self._access)
        self._started.set()
        tasks: list[asyncio.Task[Any]] = [
            asyncio.create_task(self._stop.wait(), name="stop"),
            asyncio.create_task(self._keep_session(), name="session"),
            asyncio.create_task(self.transfer.run(), name="transfers"),
        ]
        # The session's keeper returns when there is nothing more to be said; then, and at a crash, all ends.
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep_session(self) -> None:
        while True:
            began_s = self._loop.time()
            try:
                await self._session()
            except _ENDED as error:
                await self._check_peer(error)
            if self._handler.over():
                return
            now_s = self._loop.time()
            if self._retry.exhausted(now_s):
                waited_s = self._retry.elapsed_s(now_s)
                self._handler.failed(UnavailableError(f"no server at {self._server} for {waited_s:.0f} s: gave up"))
                return
            self._handler.unreachable()
            await asyncio.sleep(self._retry.next_delay_s(now_s, now_s - began_s))

    async def _session(self) -> None:
        """Hold one session from hello to its end."""
        self._retry.elapsed_s(self._loop.time())
        self._was_open = False
        async with open_aio_channel(self._server, self._access) as channel:
            async with asyncio.timeout(limit_s(self._retry.elapsed_s(self._loop.time()))):
                await _connect(channel)
            call: _Call = pb_grpc.CoordinatorStub(channel).Session(metadata=metadata(self._access))
            with contextlib.suppress(asyncio.InvalidStateError):  # ended already: to read gives its status
                await call.write(pb.WorkerMessage(hello=self._handler.hello()))
            async with asyncio.timeout(_WELCOME_WITHIN_S):
                first = await call.read()
            if not isinstance(first, pb.ServerMessage):
                return
            if first.WhichOneof("message") != "welcome":
                self._handler.received(first)
                return
            for message in self._handler.welcomed(first.welcome):
                self._outgoing.append(message)
            await self._converse(call)

    async def _converse(self, call: _Call) -> None:
        self._open = self._was_open = True
        self._problem = None
        self._retry.reset()
        self._wake.set()
        tasks = [
            asyncio.create_task(self._write(call), name="session-writer"),
            asyncio.create_task(self._heartbeats(), name="heartbeats"),
        ]
        try:
            while isinstance(message := await call.read(), pb.ServerMessage):
                answer = self._handler.received(message)
                if answer is not None:
                    self.send_now(answer)
        finally:
            self._open = False
            self._outgoing.clear()
            for task in tasks:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def _write(self, call: _Call) -> None:
        try:
            while True:
                while self._outgoing:
                    await call.write(self._outgoing.popleft())
                self._last_write_s = self._loop.time()
                self._wake.clear()
                await self._wake.wait()
        except BROKEN:
            # The reader hears of it too, and with a status.
            return
        except Exception:
            call.cancel()
            raise

    async def _heartbeats(self) -> None:
        """Give a sign of life whenever nothing else was said for a while."""
        every_s = self._handler.heartbeat_s()
        while True:
            idle_s = self._loop.time() - self._last_write_s
            if idle_s >= every_s:
                self.send_now(self._handler.heartbeat())
                idle_s = 0.0
            await asyncio.sleep(every_s - idle_s)

    async def _check_peer(self, error: Exception) -> None:
        """See whether another attempt may go better.

        Raises:
            UnavailableError: something else answers there.
            RefusedError: the server does not want us, or a certificate is not accepted.
        """
        code = error.code() if isinstance(error, grpc.aio.AioRpcError) else None
        if code is grpc.StatusCode.UNIMPLEMENTED:
            raise UnavailableError(f"{self._server} answers, but is no paceline server") from None
        if code in _REFUSED and isinstance(error, grpc.aio.AioRpcError):
            raise RefusedError(f"refused by the server: {error.details()}") from None
        if self._was_open:
            return
        # A server that dies while it shakes hands looks like one that does not want us: so twice.
        problem = await asyncio.to_thread(handshake_problem, self._server, self._access.tls)
        if problem is not None and problem == self._problem:
            raise RefusedError(f"no session with {self._server}: {problem}")
        self._problem = problem


async def _connect(channel: grpc.aio.Channel) -> None:
    """Wait until a channel has its connection.

    Raises:
        TimeoutError: it failed.
    """
    state = channel.get_state(try_to_connect=True)
    while state is not grpc.ChannelConnectivity.READY:
        if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
            raise TimeoutError
        await channel.wait_for_state_change(state)
        state = channel.get_state(try_to_connect=True)
