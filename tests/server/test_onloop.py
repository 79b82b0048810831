"""Another thread asks the event loop: it hears the answer or the error, or that the loop has no time."""

from __future__ import annotations

import asyncio
import threading

import pytest

from paceline.server.onloop import LoopBusyError, on_loop


async def test_the_answer_and_the_error_come_back() -> None:
    loop = asyncio.get_running_loop()
    home = threading.get_ident()
    assert await asyncio.to_thread(on_loop, loop, threading.get_ident, 5.0) == home

    def broken() -> None:
        raise RuntimeError("its own")

    # Not to be taken for a loop that is closed.
    with pytest.raises(RuntimeError, match="its own"):
        await asyncio.to_thread(on_loop, loop, broken, 5.0)


def test_what_comes_too_late_is_not_done() -> None:
    loop, gate, done = asyncio.new_event_loop(), threading.Event(), list[int]()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        loop.call_soon_threadsafe(gate.wait, 10.0)
        with pytest.raises(LoopBusyError, match=r"for 0\.01 s"):
            on_loop(loop, lambda: done.append(1), 0.01)
        gate.set()
        # It has come to what was asked after it.
        assert on_loop(loop, lambda: done, 10.0) == []
    finally:
        gate.set()
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10.0)
        loop.close()


def test_a_closed_loop_says_so() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    with pytest.raises(LoopBusyError, match="closed"):
        on_loop(loop, lambda: None, 1.0)
