"""Identifiers of the coordination, one type each so that they cannot be mixed up."""

from __future__ import annotations

from typing import NewType

WorkerName = NewType("WorkerName", str)
"""The name of a worker; statistics belong to it (and to its device)."""

Incarnation = NewType("Incarnation", str)
"""One life of a worker process: a random text chosen by the worker at its start."""

SessionId = NewType("SessionId", int)
"""One control connection, numbered by the server's shell; an incarnation may use several, one after another."""

LeaseId = NewType("LeaseId", int)
"""A fencing token: server life * 2**40 + a counter. Never reused, so that an old holder can always be told apart."""

TaskId = NewType("TaskId", int)
"""A number in the task stream."""

PushId = NewType("PushId", int)
"""One attempt to deliver a contribution, numbered by the server's shell."""

LEASES_PER_LIFE = 1 << 40


def in_order(name: str) -> tuple[int, str]:
    """Give the key by which names are sorted: w2 comes before w10."""
    return len(name), name
