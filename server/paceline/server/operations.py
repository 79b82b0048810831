"""What an admin can have a server do, and the calls that ask for it."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol

import grpc
import grpc.aio
import structlog

from paceline.errors import CheckpointError, UsageError
from paceline.protos import coordinator_pb2 as pb
from paceline.server.gate import ADMINS, Gate, Guest
from paceline.settings import WORKER_NAME

Context = grpc.aio.ServicerContext[Any, Any]

MOST_GRACE_S = 86_400.0


class Operations(Protocol):
    """What can be done with a run from outside."""

    def stop(self, grace_s: float) -> None:
        """End the run, its state saved; the present round may take so long to close."""
        ...

    def drain(self, name: str) -> None:
        """Have a worker finish its present task, push what it has and leave.

        Raises:
            UsageError: no worker of that name is connected.
        """
        ...

    def pause(self, name: str, paused: bool) -> None:
        """Give a worker no tasks until it is resumed (`paused` False).

        Raises:
            UsageError: no worker of that name was ever there.
        """
        ...

    async def checkpoint(self) -> int:
        """Save a checkpoint now.

        Returns:
            The version that it holds.

        Raises:
            UsageError: this run makes none.
            CheckpointError: it cannot be written.
        """
        ...


class RunOperations:
    """The operations of a run, each of them carried out by the part that can."""

    def __init__(
        self,
        stop: Callable[[str, float], None],
        drain: Callable[[str], None],
        pause: Callable[[str, bool], None],
        checkpoint: Callable[[], Awaitable[int]],
    ) -> None:
        self._stop = stop
        self._drain = drain
        self._pause = pause
        self._checkpoint = checkpoint

    def stop(self, grace_s: float) -> None:
        """See Operations."""
        self._stop("stopped by `paceline stop`", grace_s)

    def drain(self, name: str) -> None:
        """See Operations."""
        self._drain(name)

    def pause(self, name: str, paused: bool) -> None:
        """See Operations."""
        self._pause(name, paused)

    async def checkpoint(self) -> int:
        """See Operations."""
        return await self._checkpoint()


class Administration:
    """Answers the calls of admins.

    Args:
        gate: lets them in.
        operations: does what they ask for.
    """

    def __init__(self, gate: Gate, operations: Operations) -> None:
        self._gate = gate
        self._operations = operations

    def handlers(self) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        """Give the handlers of the calls by name."""
        return {
            "Stop": grpc.unary_unary_rpc_method_handler(
                self._stop, pb.StopRequest.FromString, pb.StopResponse.SerializeToString
            ),
            "Drain": grpc.unary_unary_rpc_method_handler(
                self._drain, pb.DrainRequest.FromString, pb.DrainResponse.SerializeToString
            ),
            "Pause": grpc.unary_unary_rpc_method_handler(
                self._pause, pb.PauseRequest.FromString, pb.PauseResponse.SerializeToString
            ),
            "Checkpoint": grpc.unary_unary_rpc_method_handler(
                self._checkpoint, pb.CheckpointRequest.FromString, pb.CheckpointResponse.SerializeToString
            ),
        }

    async def _stop(self, request: pb.StopRequest, context: Context) -> pb.StopResponse:
        guest = await self._gate.admit(context, ADMINS)
        grace_s = request.grace_s
        if not (math.isfinite(grace_s) and 0 <= grace_s <= MOST_GRACE_S):
            expected = f"expected 0 to {MOST_GRACE_S:g} s"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"grace is {grace_s:g} s: {expected}")
        _note("stop", guest, grace_s=grace_s)
        self._operations.stop(grace_s)
        return pb.StopResponse()

    async def _drain(self, request: pb.DrainRequest, context: Context) -> pb.DrainResponse:
        await self._with_worker("drain", request.name, self._operations.drain, context)
        return pb.DrainResponse()

    async def _pause(self, request: pb.PauseRequest, context: Context) -> pb.PauseResponse:
        what = "pause" if request.paused else "resume"
        pause = partial(self._operations.pause, paused=request.paused)
        await self._with_worker(what, request.name, pause, context)
        return pb.PauseResponse()

    async def _with_worker(self, what: str, name: str, do: Callable[[str], None], context: Context) -> None:
        guest = await self._gate.admit(context, ADMINS)
        if not WORKER_NAME.fullmatch(name):
            expected = "expected 1 to 64 of the characters A-Z a-z 0-9 . _ -"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"name is {name[:80]!r}: {expected}")
        _note(what, guest, worker=name)
        try:
            do(name)
        except UsageError as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(error))

    async def _checkpoint(self, request: pb.CheckpointRequest, context: Context) -> pb.CheckpointResponse:
        guest = await self._gate.admit(context, ADMINS)
        _note("checkpoint", guest)
        try:
            return pb.CheckpointResponse(version=await self._operations.checkpoint())
        except (UsageError, CheckpointError) as error:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
            raise


def _note(what: str, guest: Guest, **details: object) -> None:
    structlog.get_logger().warning(
        f"{what} was asked for", address=guest.address, token=guest.token or "none", **details
    )
