"""Counts connections of whom nothing is known yet, by address and in all, so that they cannot fill the server."""

from __future__ import annotations

from collections import Counter

PER_ADDRESS = 64
IN_ALL = 1024


class Seat:
    """A place for one connection, until it is known or over; `free` may be called twice."""

    __slots__ = ("_address", "_room")

    def __init__(self, room: WaitingRoom, address: str) -> None:
        self._room: WaitingRoom | None = room
        self._address = address

    def free(self) -> None:
        """Let another have it."""
        room, self._room = self._room, None
        if room is not None:
            room.leave(self._address)


class WaitingRoom:
    """Has PER_ADDRESS seats for each address, and IN_ALL."""

    def __init__(self) -> None:
        self._taken: Counter[str] = Counter()
        self._in_all = 0

    def __len__(self) -> int:
        return self._in_all

    def take(self, address: str) -> Seat | None:
        """Take a seat; None: there is none left."""
        if self._in_all >= IN_ALL or self._taken[address] >= PER_ADDRESS:
            if not self._taken[address]:
                del self._taken[address]
            return None
        self._taken[address] += 1
        self._in_all += 1
        return Seat(self, address)

    def leave(self, address: str) -> None:
        """Give a seat back."""
        self._in_all -= 1
        self._taken[address] -= 1
        if not self._taken[address]:
            del self._taken[address]
