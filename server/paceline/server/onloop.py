"""Has an event loop do something for another thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class LoopBusyError(Exception):
    """The loop did not come to it in time, or is closed."""


def on_loop(loop: asyncio.AbstractEventLoop, make: Callable[[], T], limit_s: float) -> T:
    """Call something on a loop, from another thread, and give what it gives.

    Raises:
        LoopBusyError: it was not called within `limit_s`, and will not be.
        Exception: what it raised.
    """
    made: concurrent.futures.Future[T] = concurrent.futures.Future()

    def call() -> None:
        if not made.set_running_or_notify_cancel():
            return
        try:
            made.set_result(make())
        except Exception as error:
            made.set_exception(error)

    try:
        loop.call_soon_threadsafe(call)
    except RuntimeError as error:
        raise LoopBusyError("it is closed") from error
    done, _ = concurrent.futures.wait([made], limit_s)
    if not done and made.cancel():
        raise LoopBusyError(f"it did nothing for {limit_s:g} s")
    return made.result()
