"""One thread that works off calls in order and hands each result back to the event loop.

The loop never computes and the thread never touches what the loop owns: what goes between them are calls and results.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

_Call = tuple[Callable[[], Any], Callable[[Any], None] | None]


class WorkThread:
    """A first-in-first-out row of calls with a thread of its own.

    Args:
        name: of the thread.
        crashed: told on the loop when a call raised. Calls must turn into results whatever they expect to go wrong.
    """

    def __init__(self, name: str, crashed: Callable[[BaseException], None]) -> None:
        self._calls: SimpleQueue[list[_Call] | None] = SimpleQueue()
        self._held: list[_Call] = []
        self._results: deque[tuple[Callable[[Any], None], Any]] = deque()
        self._crashed = crashed
        self._woken = False
        self._loop: asyncio.AbstractEventLoop | None = None
        # A daemon: user code that hangs in an update must not keep a process alive that was told twice to end.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin; results are delivered on the given loop."""
        self._loop = loop
        self._thread.start()

    def submit(self, work: Callable[[], T], done: Callable[[T], None] | None = None) -> None:
        """Queue a call; `done` gets its result on the loop. Results come in the order of the calls."""
        self._held.append((work, done))
        batch, self._held = self._held, []
        self._calls.put(batch)

    def submit_with_next(self, work: Callable[[], object]) -> None:
        """Queue a call that nobody waits for; it is begun when the next one is submitted.

        Waking a sleeping thread costs both threads more than a small call takes.
        """
        self._held.append((work, None))

    async def result_of(self, work: Callable[[], T]) -> T:
        """Queue a call and wait for its result; what it raises is raised here."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def attempt() -> Callable[[], None]:
            try:
                result = work()
            except Exception as error:
                return partial(future.set_exception, error)
            return partial(future.set_result, result)

        self.submit(attempt, lambda settle: None if future.done() else settle())
        return await future

    async def close(self, patience_s: float | None = None) -> None:
        """Work off what is queued and end; do not wait longer than this for it."""
        if self._thread.is_alive():
            self.submit(lambda: None)
            self._calls.put(None)
            await asyncio.to_thread(self._thread.join, patience_s)

    def _run(self) -> None:
        while (batch := self._calls.get()) is not None:
            for work, done in batch:
                self._call(work, done)

    def _call(self, work: Callable[[], Any], done: Callable[[Any], None] | None) -> None:
        try:
            result = work()
        except BaseException as error:  # user code may raise SystemExit, which would end the thread in silence
            done, result = self._crashed, error
        if done is not None:
            self._hand_over(done, result)

    def _hand_over(self, done: Callable[[Any], None], result: Any) -> None:
        self._results.append((done, result))
        # Waking the loop costs 10-20 us: once is enough for all results that it has not begun to fetch.
        if not self._woken and self._loop is not None and not self._loop.is_closed():
            self._woken = True
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        # Lowered first: a result that comes from here on wakes the loop again, so that none is left lying.
        self._woken = False
        while self._results:
            done, result = self._results.popleft()
            try:
                done(result)
            except Exception as error:
                self._crashed(error)
