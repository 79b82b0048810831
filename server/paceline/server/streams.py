"""Ends the tasks that serve a stream, without hiding what went wrong in them."""

from __future__ import annotations

import asyncio

import structlog


async def end_tasks(*tasks: asyncio.Task[None]) -> None:
    """Cancel tasks and wait until they are over; an error that is not gRPC's own (a peer that is gone) is logged."""
    for task in tasks:
        task.cancel()
    for error in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(error, Exception) and not type(error).__module__.startswith("grpc"):
            structlog.get_logger().error("a stream's task failed", exc_info=error)
