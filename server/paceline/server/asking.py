"""Asks a server something, once, and says in words why that failed."""

from __future__ import annotations

from typing import Protocol, TypeVar

import grpc

from paceline.access import Access
from paceline.errors import RefusedError, UnavailableError, UsageError
from paceline.protos import coordinator_pb2 as pb
from paceline.protos.channels import handshake_problem, metadata, open_channel
from paceline.protos.coordinator_pb2_grpc import CoordinatorStub

_Answer = TypeVar("_Answer", covariant=True)

_REFUSED = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.RESOURCE_EXHAUSTED)
_MISTAKEN = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION)


class Question(Protocol[_Answer]):
    """A call of the service."""

    def __call__(self, stub: CoordinatorStub, /, *, timeout: float, metadata: tuple[tuple[str, str], ...]) -> _Answer:
        """Make it."""
        ...


def ask(address: str, question: Question[_Answer], timeout_s: float, access: Access) -> _Answer:
    """Ask the server at HOST:PORT.

    Raises:
        UnavailableError: it cannot be reached, or does not answer within `timeout_s`.
        RefusedError: it does not answer this asker, or one side's certificate is not accepted.
        UsageError: it cannot do what is asked.
    """
    with open_channel(address, access) as channel:
        try:
            return question(CoordinatorStub(channel), timeout=timeout_s, metadata=metadata(access))
        except grpc.RpcError as error:
            code = error.code()
            if code in _REFUSED:
                raise RefusedError(f"refused by the server: {error.details()}") from None
            if code in _MISTAKEN:
                raise UsageError(str(error.details())) from None
            why = _why(error, timeout_s)
    problem = handshake_problem(address, access.tls) if code is grpc.StatusCode.UNAVAILABLE else None
    if problem is not None:
        raise RefusedError(f"server {address!r} cannot be asked: {problem}")
    raise UnavailableError(f"server {address!r} cannot be asked: {why}")


def _why(error: grpc.RpcError, timeout_s: float) -> str:
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"no answer within {timeout_s:g} s"
    if error.code() is grpc.StatusCode.UNIMPLEMENTED:
        return "something answers there, but it is no paceline server"
    return next(iter(str(error.details()).splitlines()), error.code().name)


def stop(address: str, grace_s: float, timeout_s: float, access: Access) -> None:
    """Have the run end with its state saved; see `ask`."""
    request = pb.StopRequest(grace_s=grace_s)
    ask(address, lambda stub, **call: stub.Stop(request, **call), timeout_s, access)


def drain(address: str, name: str, timeout_s: float, access: Access) -> None:
    """Have a worker finish its present task and leave; see `ask`."""
    request = pb.DrainRequest(name=name)
    ask(address, lambda stub, **call: stub.Drain(request, **call), timeout_s, access)


def pause(address: str, name: str, paused: bool, timeout_s: float, access: Access) -> None:
    """Have a worker get no tasks, or some again; see `ask`."""
    request = pb.PauseRequest(name=name, paused=paused)
    ask(address, lambda stub, **call: stub.Pause(request, **call), timeout_s, access)


def checkpoint(address: str, timeout_s: float, access: Access) -> int:
    """Have a checkpoint saved now, and give its version; see `ask`."""
    request = pb.CheckpointRequest()
    answer: pb.CheckpointResponse = ask(
        address, lambda stub, **call: stub.Checkpoint(request, **call), timeout_s, access
    )
    return answer.version
