"""Begins streams so that they can always be ended, and ends their tasks without hiding what went wrong in them."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio
import structlog


async def begin(context: grpc.aio.ServicerContext[Any, Any]) -> None:
    """Send the headers of a stream, before anything else.

    Else they travel with the first write, and if this one is cut off, gRPC sends them a second time with the status:
    core refuses that (TOO_MANY_OPERATIONS), and the peer never hears that its stream is over.
    """
    await context.send_initial_metadata(())


async def end_tasks(*tasks: asyncio.Task[None]) -> None:
    """Cancel tasks and wait until they are over; an error that is not gRPC's own (a peer that is gone) is logged."""
    for task in tasks:
        task.cancel()
    for error in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(error, Exception) and not type(error).__module__.startswith("grpc"):
            structlog.get_logger().error("a stream's task failed", exc_info=error)
