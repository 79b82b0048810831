"""Simulated connections. Messages of one session, and of one worker's pushes, arrive in the order of sending."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np

from paceline.coordination.events import Event, SessionClosed
from paceline.coordination.ids import SessionId
from paceline.laws import Law
from paceline.simulation.clock import Clock


class Listener(Protocol):
    """A process that can be told something."""

    def hear(self, action: Callable[[], None]) -> None:
        """Receive a message."""
        ...


@dataclass(slots=True)
class Lane:
    """One direction of a connection."""

    free_s: float = 0.0


@dataclass(slots=True)
class Session:
    """A control connection; `open` as the server sees it, `cut` if nothing arrives any more."""

    listener: Listener
    up: Lane = field(default_factory=Lane)
    down: Lane = field(default_factory=Lane)
    open: bool = True
    cut: bool = False


class Network:
    """All connections of a run.

    Args:
        latency_s: of every message, drawn anew for each; None: none.
        arrive: takes what reaches the server: the session (None: it came otherwise) and the event.
    """

    def __init__(
        self,
        clock: Clock,
        latency_s: Law | None,
        rng: np.random.Generator,
        arrive: Callable[[SessionId | None, Event], None],
    ) -> None:
        self.lost_messages = 0
        self._clock = clock
        self._latency_s = latency_s
        self._rng = rng
        self._arrive = arrive
        self._sessions: dict[SessionId, Session] = {}
        self._data: dict[Listener, Lane] = {}

    def connect(self, listener: Listener) -> SessionId:
        """Open a session."""
        session = SessionId(len(self._sessions) + 1)
        self._sessions[session] = Session(listener)
        return session

    def is_open(self, session: SessionId) -> bool:
        """Tell whether the server holds a session for open."""
        return self._sessions[session].open

    def say(self, session: SessionId, event: Event) -> None:
        """Send a message to the server; lost if the session is closed before it arrives."""
        link = self._sessions[session]
        self._travel(link.up, lambda: self._reach_server(session, link, event))

    def tell(self, session: SessionId, action: Callable[[], None]) -> None:
        """Send a message to a worker; lost if its session is closed, or breaks on the way."""
        link = self._sessions[session]
        if link.open:
            self._travel(link.down, lambda: self._reach_worker(link, action))
        else:
            self.lost_messages += 1

    def send_data(self, listener: Listener, action: Callable[[], None]) -> None:
        """Send something over a worker's data connection, either way."""
        self._travel(self._data.setdefault(listener, Lane()), action)

    def cut(self, session: SessionId, noticed_after_s: float = 0.0) -> None:
        """Break a session; the server hears of it now or later."""
        self._sessions[session].cut = True
        if noticed_after_s > 0:
            self._clock.after(noticed_after_s, partial(self.close, session))
        else:
            self.close(session)

    def close(self, session: SessionId) -> None:
        """Let the server see that a session has ended."""
        link = self._sessions[session]
        if link.open:
            link.open = False
            self._arrive(None, SessionClosed(session))

    def hang_up(self, listener: Listener) -> None:
        """Break all sessions of a process that has ended."""
        for session, link in self._sessions.items():
            if link.listener is listener and not link.cut:
                self.cut(session)

    def _travel(self, lane: Lane, action: Callable[[], None]) -> None:
        if self._latency_s is None:
            action()
            return
        lane.free_s = max(lane.free_s, self._clock.now + self._latency_s.draw(self._rng))
        self._clock.at(lane.free_s, action)

    def _reach_server(self, session: SessionId, link: Session, event: Event) -> None:
        if link.cut or not link.open:
            self.lost_messages += 1
        else:
            self._arrive(session, event)

    def _reach_worker(self, link: Session, action: Callable[[], None]) -> None:
        if link.cut:
            self.lost_messages += 1
        else:
            link.listener.hear(action)
