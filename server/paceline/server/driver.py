"""Drives the coordinator: events in, one after another; effects out, in order; one timer for its deadline.

The event loop owns the machine. An event that comes up while effects are carried out waits its turn, so that `step` is
never called within `step`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from paceline.coordination import Machine, Snapshot
from paceline.coordination.cut import Cut
from paceline.coordination.effects import Finish, Outcome
from paceline.coordination.events import Event, Hello, Tick
from paceline.server.books import Books

Action = Callable[[Any], None]


class Driver:
    """The machine's owner.

    Args:
        machine: the coordinator.
        actions: what carries out each kind of effect; kinds that are not named concern the books alone.

    Attributes:
        finished: done, with the run's end, as soon as it is over.
        bug: what an error of our own raised, if that ended the run.
        final: rewrites the end of the run before anybody hears of it.
    """

    def __init__(self, machine: Machine) -> None:
        self._loop = asyncio.get_running_loop()
        self._began_s = self._loop.time()
        self._machine = machine
        self._actions: Mapping[type, Action] = {}
        self._books: Books | None = None
        self._events: deque[Event] = deque()
        self._draining = False
        self._timer: asyncio.TimerHandle | None = None
        self.finished: asyncio.Future[Finish] = self._loop.create_future()
        self.bug: BaseException | None = None
        self.final: Callable[[Finish], Finish] = lambda finish: finish

    def connect(self, actions: Mapping[type, Action], books: Books) -> None:
        """Say what carries effects out and where they are noted."""
        self._actions = actions
        self._books = books

    def begin(self) -> None:
        """Heed the machine's deadline from now on, also if nothing ever happens."""
        self._set_timer()

    def now(self) -> float:
        """Seconds since the server began."""
        return self._loop.time() - self._began_s

    def snapshot(self) -> Snapshot:
        """Copy out what people may see."""
        snapshot = self._machine.snapshot(self.now())
        if self.finished.done():
            finish = self.finished.result()
            return dataclasses.replace(snapshot, state=finish.outcome.value, situation=finish.reason)
        return snapshot

    def cut(self) -> Cut | None:
        """Take a cut at the last commit; None if the update to the next version failed or is being made."""
        return self._machine.cut(self.now())

    def post(self, event: Event) -> None:
        """Hand an event to the machine and carry out what it orders; after the end nothing happens."""
        self._events.append(event)
        if self._draining:
            return
        self._draining = True
        try:
            while self._events and not self.finished.done():
                self._take(self._events.popleft())
        except Exception as error:
            self.crashed(error)
        finally:
            self._events.clear()
            self._draining = False
        self._set_timer()

    def end(self, finish: Finish) -> None:
        """End the run; the first end counts."""
        if not self.finished.done():
            finish = self.final(finish)
            self.finished.set_result(finish)
            if self._books is not None:
                self._books.observe(finish, self.now())

    def crashed(self, error: BaseException) -> None:
        """End the run because of an error of our own."""
        if self.bug is None:
            self.bug = error
        detail = "".join(traceback.format_exception(error))
        self.end(Finish(Outcome.FAILED, f"a bug in the server: {type(error).__name__}: {error}", detail=detail))

    def close(self) -> None:
        """Wake up no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _take(self, event: Event) -> None:
        now_s = self.now()
        books, actions = self._books, self._actions
        if books is not None and type(event) is Hello:
            books.hello(event, now_s)
        for effect in self._machine.step(event, now_s):
            if type(effect) is Finish:
                self.end(effect)
                continue
            action = actions.get(type(effect))
            if action is not None:
                action(effect)
            if books is not None:
                books.observe(effect, now_s)

    def _set_timer(self) -> None:
        """Be woken at the deadline. A timer too early wakes in vain once, which is cheaper than one per event."""
        deadline = None if self.finished.done() else self._machine.deadline
        if deadline is None:
            return
        at_s = deadline + self._began_s
        if self._timer is not None and not self._timer.cancelled() and self._timer.when() <= at_s:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(at_s, self._wake)

    def _wake(self) -> None:
        self._timer = None
        deadline = self._machine.deadline
        if deadline is not None and deadline <= self.now():
            self.post(Tick())
        else:
            self._set_timer()
