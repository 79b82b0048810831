"""Who may do what: looks at a call's token before anything of the call is read.

Nothing is kept for a peer that has not been let in, but a count by address.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import grpc
import grpc.aio
import structlog

from paceline.coordination.ids import Incarnation
from paceline.server.failures import Failures, address_of, is_loopback
from paceline.server.tokenbook import TokenBook
from paceline.server.waiting import Seat, WaitingRoom
from paceline.tokens import Role, Token, now_utc

Context = grpc.aio.ServicerContext[Any, Any]

# Metadata that no client of ours sends is not looked at.
_KEY = "authorization"
_SCHEME = "Bearer "

WORKERS = frozenset({Role.WORKER, Role.ADMIN})
VIEWERS = frozenset({Role.VIEWER, Role.ADMIN})
ADMINS = frozenset({Role.ADMIN})


@dataclasses.dataclass(frozen=True, slots=True)
class Guest:
    """Who makes a call that was let in.

    Attributes:
        token: its id; empty where none is asked for.
        name: the worker's, if the token is one's; None: any.
    """

    address: str
    token: str = ""
    name: str | None = None


class Gate:
    """Lets calls in. Owned by the event loop.

    Args:
        tokens: None: none are asked for.
        encrypted: every peer has shown a certificate.

    Attributes:
        joined: the workers that are welcome, each with the token that it joined with; empty where none is asked for.
    """

    def __init__(self, tokens: TokenBook | None, *, encrypted: bool) -> None:
        self._tokens = tokens
        self._encrypted = encrypted
        self._failures = Failures()
        self._room = WaitingRoom()
        self.joined: dict[Incarnation, str] = {}
        self._inside: dict[object, tuple[Guest, Callable[[str], None]]] = {}

    async def admit(self, context: Context, roles: frozenset[Role]) -> Guest:
        """Let a call in, or end it with the reason.

        Args:
            roles: one of them is needed.
        """
        peer = context.peer()
        address = address_of(peer)
        if self._tokens is None:
            if roles == ADMINS and not self._encrypted and not is_loopback(peer):
                await self._turn_away(context, grpc.StatusCode.PERMISSION_DENIED, _NOT_FROM_AFAR)
            return Guest(address)
        text = _bearer(context)
        token = self._tokens.find(text)
        code, reason = _judge(token, text, roles)
        if token is None or reason:
            await self._turn_away(context, code, reason)
        return Guest(address, token.id, token.name if token.role is Role.WORKER else None)

    def look(self, address: str, text: str, roles: frozenset[Role]) -> tuple[grpc.StatusCode, str]:
        """Judge the token of one who asks by another way than gRPC.

        Args:
            address: his, as `failures.address_of` gives it.
            text: the token, or nothing.
            roles: one of them is needed, where tokens are asked for.
        Returns:
            OK and no reason, or why he is not let in.
        """
        if self._tokens is None:
            return grpc.StatusCode.OK, ""
        token = self._tokens.find(text)
        code, reason = _judge(token, text, roles)
        return (code, reason) if not reason else self._refusal(address, code, reason)

    async def seat(self, context: Context) -> Seat:
        """Give a peer of whom nothing is known a place to say who it is, or end its call."""
        address = address_of(context.peer())
        seat = self._room.take(address)
        if seat is None:
            reason = f"too many calls from {address}, or in all, have not said who they are"
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, reason)
            raise AssertionError("abort raises")
        return seat

    def may_attach(self, guest: Guest, incarnation: Incarnation) -> bool:
        """Tell whether a worker's bytes may travel with this token: the one that it joined with."""
        return self._tokens is None or self.joined.get(incarnation) == guest.token

    def failed(self, address: str, reason: str) -> None:
        """Count and log a join that failed for another reason than the token alone."""
        now_s = asyncio.get_running_loop().time()
        if not self._failures.wait_s(address, now_s):
            structlog.get_logger().warning("refused", address=address, reason=reason)
        self._failures.note(address, now_s)

    @contextmanager
    def watch(self, guest: Guest, end: Callable[[str], None]) -> Iterator[None]:
        """While this lasts, `end` is called with the reason if the guest's token is good no more."""
        if not guest.token:
            yield
            return
        key = object()
        self._inside[key] = (guest, end)
        try:
            yield
        finally:
            self._inside.pop(key, None)

    def look_again(self) -> None:
        """Send away those whose token was revoked or has expired."""
        if self._tokens is None:
            return
        self._tokens.refresh()
        for key, (guest, end) in list(self._inside.items()):
            fault = self._tokens.fault(guest.token)
            if fault is not None:
                del self._inside[key]
                structlog.get_logger().warning("sent away", address=guest.address, reason=fault)
                end(fault)

    async def _turn_away(self, context: Context, code: grpc.StatusCode, reason: str) -> NoReturn:
        await context.abort(*self._refusal(address_of(context.peer()), code, reason))
        raise AssertionError("abort raises")

    def _refusal(self, address: str, code: grpc.StatusCode, reason: str) -> tuple[grpc.StatusCode, str]:
        """Count a failure; who fails too often hears that instead."""
        wait_s = self._failures.wait_s(address, asyncio.get_running_loop().time())
        self.failed(address, reason)
        if wait_s:
            reason = f"too many failed calls from {address}: try again in {wait_s:.0f} s"
            return grpc.StatusCode.RESOURCE_EXHAUSTED, reason
        return code, reason


_NOT_FROM_AFAR = "this call is allowed from the server's own machine only, or with TLS, or with an admin's token"


def _bearer(context: Context) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == _KEY and isinstance(value, str) and value.startswith(_SCHEME):
            return value.removeprefix(_SCHEME).strip()
    return ""


def _judge(token: Token | None, text: str, roles: frozenset[Role]) -> tuple[grpc.StatusCode, str]:
    """Say what is wrong with a token; empty: nothing."""
    if not text:
        reason = "no token came with the call: expected --token-file or PACELINE_TOKEN"
        return grpc.StatusCode.UNAUTHENTICATED, reason
    if token is None:
        return grpc.StatusCode.UNAUTHENTICATED, "the token is unknown or wrong: expected one of `paceline token create`"
    fault = token.fault(now_utc())
    if fault is not None:
        return grpc.StatusCode.UNAUTHENTICATED, fault
    if token.role not in roles:
        wanted = " or ".join(sorted(roles))
        return grpc.StatusCode.PERMISSION_DENIED, f"token {token.id} has role {token.role}: expected {wanted}"
    return grpc.StatusCode.OK, ""
