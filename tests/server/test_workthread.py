from __future__ import annotations

import asyncio
import threading
from functools import partial

import pytest

from paceline.server.workthread import WorkThread


async def test_calls_run_in_order_on_one_thread_and_results_come_in_order_on_the_loop() -> None:
    thread = WorkThread("test", lambda error: None)
    thread.start(asyncio.get_running_loop())
    ran: list[tuple[int, int]] = []
    came: list[tuple[int, int]] = []

    def work(number: int) -> int:
        ran.append((number, threading.get_ident()))
        return number

    for number in range(500):
        if number % 3 == 0:
            thread.submit_with_next(partial(work, number))
        else:
            thread.submit(partial(work, number), lambda result: came.append((result, threading.get_ident())))
    assert await thread.result_of(lambda: "last") == "last"
    assert [number for number, _ in ran] == list(range(500))
    assert len({ident for _, ident in ran}) == 1
    assert [number for number, _ in came] == [number for number in range(500) if number % 3]
    assert {ident for _, ident in came} == {threading.get_ident()}
    await thread.close()


async def test_results_that_come_while_others_are_delivered_are_not_left_lying() -> None:
    thread = WorkThread("test", lambda error: None)
    thread.start(asyncio.get_running_loop())
    for number in range(2000):
        assert await asyncio.wait_for(thread.result_of(partial(abs, number)), 10) == number
    await thread.close()


async def test_what_is_queued_is_worked_off_before_the_end() -> None:
    thread = WorkThread("test", lambda error: None)
    thread.start(asyncio.get_running_loop())
    ran: list[int] = []
    thread.submit(lambda: ran.append(1))
    thread.submit_with_next(lambda: ran.append(2))
    await thread.close()
    assert ran == [1, 2]


async def test_a_call_that_raises_is_told_and_the_thread_goes_on() -> None:
    errors: list[BaseException] = []
    thread = WorkThread("test", errors.append)
    thread.start(asyncio.get_running_loop())
    thread.submit(lambda: 1 // 0, lambda result: errors.append(AssertionError("no result")))
    assert await thread.result_of(lambda: 7) == 7
    assert [type(error) for error in errors] == [ZeroDivisionError]

    def fail(result: int) -> None:
        raise RuntimeError("on the loop")

    with pytest.raises(ZeroDivisionError):
        await thread.result_of(lambda: 1 // 0)

    def leave() -> None:
        raise SystemExit

    thread.submit(leave)
    thread.submit(lambda: 1, fail)
    assert await thread.result_of(lambda: 8) == 8
    assert [type(error) for error in errors] == [ZeroDivisionError, SystemExit, RuntimeError]
    await thread.close()
