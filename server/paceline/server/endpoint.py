"""The port: a grpc.aio server with the Coordinator service, health, and reflection where asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from paceline.errors import SettingsError, UsageError
from paceline.protos import coordinator_pb2 as pb
from paceline.protos.framing import server_options
from paceline.server.address import Address
from paceline.server.gate import VIEWERS, Gate
from paceline.server.operations import Administration
from paceline.tls import Tls

SERVICE = "paceline.v1.Coordinator"
# Answers that are on their way (a push's result, a status) get this long.
CLOSE_LIMIT_S = 0.5


class StreamHandler(Protocol):
    """Serves one stream to its end, by reading from and writing to its context."""

    async def __call__(self, requests: AsyncIterator[Any], context: grpc.aio.ServicerContext[Any, Any], /) -> None:
        """Serve it."""
        ...


class Endpoint:
    """Listens. To be made on the event loop that serves.

    Args:
        gate: lets askers in.
        message_bytes: no message that comes is larger.

    Raises:
        SettingsError: reflection is asked for and not installed.
    """

    def __init__(self, gate: Gate, message_bytes: int, *, reflection: bool) -> None:
        self._gate = gate
        self._server = grpc.aio.server(options=server_options(message_bytes))
        if reflection:
            _add_reflection(self._server)
        self._health = health.aio.HealthServicer()

    def bind(self, address: Address, tls: Tls | None = None) -> Address:
        """Take the port; nobody is served yet.

        Args:
            tls: whoever connects needs a certificate of its CA; None: nothing is encrypted.

        Returns:
            The real address.

        Raises:
            UsageError: the port cannot be had.
        """
        try:
            if tls is None:
                port = self._server.add_insecure_port(str(address))
            else:
                credentials = grpc.ssl_server_credentials([(tls.key, tls.certificate)], tls.ca, True)
                port = self._server.add_secure_port(str(address), credentials)
        except RuntimeError as error:
            raise UsageError(f"port {address.port} on {address.host} is taken or not to be had") from error
        return Address(address.host, port)

    async def start(
        self,
        session: StreamHandler,
        transfer: StreamHandler,
        status: Callable[[], Awaitable[pb.StatusResponse]],
        administration: Administration,
    ) -> None:
        """Begin to serve."""

        async def answer(request: pb.StatusRequest, context: grpc.aio.ServicerContext[Any, Any]) -> pb.StatusResponse:
            await self._gate.admit(context, VIEWERS)
            return await status()

        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            # Without deserialisers: bytes come as they are, to be measured before they are read.
            "Session": grpc.stream_stream_rpc_method_handler(session, None, pb.ServerMessage.SerializeToString),
            "Transfer": grpc.stream_stream_rpc_method_handler(transfer),
            "Status": grpc.unary_unary_rpc_method_handler(
                answer, pb.StatusRequest.FromString, pb.StatusResponse.SerializeToString
            ),
            **administration.handlers(),
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        for name in ("", SERVICE):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        await self._server.start()

    async def close(self) -> None:
        """Stop serving; what is still open a moment later is cut off."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(CLOSE_LIMIT_S)


def _add_reflection(server: grpc.aio.Server) -> None:
    try:
        from grpc_reflection.v1alpha import reflection
    except ImportError as error:
        raise SettingsError(
            "reflection is asked for, but grpcio-reflection is not installed: pip install paceline[debug]"
        ) from error
    reflection.enable_server_reflection(
        (SERVICE, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME), server
    )
