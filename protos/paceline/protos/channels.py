"""Opens channels to a server with what an Access holds, and finds out why a handshake failed."""

from __future__ import annotations

import socket
import ssl

import grpc
import grpc.aio

from paceline.access import Access
from paceline.protos.framing import channel_options
from paceline.tls import Tls

Metadata = tuple[tuple[str, str], ...]

# OpenSSL's X509_V_ERR_*.
_EXPIRED, _NOT_YET, _HOSTNAME, _ADDRESS = 10, 9, 62, 64
_PURPOSE = 26


def open_channel(address: str, access: Access) -> grpc.Channel:
    """Open a channel for calls that block."""
    if access.tls is None:
        return grpc.insecure_channel(address, options=channel_options())
    return grpc.secure_channel(address, _credentials(access.tls), options=channel_options())


def open_aio_channel(address: str, access: Access) -> grpc.aio.Channel:
    """Open a channel for an event loop."""
    if access.tls is None:
        return grpc.aio.insecure_channel(address, options=channel_options())
    return grpc.aio.secure_channel(address, _credentials(access.tls), options=channel_options())


def metadata(access: Access) -> Metadata:
    """Give what travels with every call."""
    return (("authorization", f"Bearer {access.token}"),) if access.token else ()


def _credentials(tls: Tls) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(tls.ca, tls.key, tls.certificate)


def handshake_problem(address: str, tls: Tls | None, timeout_s: float = 3.0) -> str | None:
    """Shake hands once more, to learn what gRPC does not say.

    Blocks; to be called after a connection failed.

    Returns:
        What is wrong, for people; None: nothing, or nobody listens there.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        with socket.create_connection((host, int(port)), timeout_s) as connection:
            return _plain_problem(connection) if tls is None else _tls_problem(connection, host, tls)
    except OSError:
        return None


def _plain_problem(connection: socket.socket) -> str | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with context.wrap_socket(connection):
            return "the server wants TLS: give --tls-dir with certificates of its CA"
    except ssl.SSLError:
        return None


def _tls_problem(connection: socket.socket, host: str, tls: Tls) -> str | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(tls.ca_path)
    context.load_cert_chain(tls.certificate_path, tls.key_path)
    context.set_alpn_protocols(["h2"])
    try:
        with context.wrap_socket(connection, server_hostname=host) as stream:
            # What a server thinks of our certificate it says after the handshake, or it hangs up without a word.
            if stream.recv(1):
                return None
    except ssl.SSLCertVerificationError as error:
        return _server_problem(error, host, tls)
    except ssl.SSLError as error:
        if error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"):
            return "the server speaks no TLS: leave --tls-dir away, or start the server with it"
        if "ALERT" not in (error.reason or ""):
            return None
    except ConnectionResetError:
        pass
    return (
        f"the server does not accept {tls.certificate_path}: it is of another CA than the server's, "
        "or expired by the server's clock"
    )


def _server_problem(error: ssl.SSLCertVerificationError, host: str, tls: Tls) -> str:
    code = error.verify_code
    if code == _EXPIRED:
        return "the server's certificate has expired"
    if code == _NOT_YET:
        return "the server's certificate is not valid yet: is this machine's clock right?"
    if code in (_HOSTNAME, _ADDRESS):
        return f"the server's certificate is not for {host!r}: make it with `paceline certs init --host {host}`"
    if code == _PURPOSE:
        return "whoever answers there shows a worker's certificate: it is not the server"
    return f"the server's certificate is not of the CA in {tls.ca_path} ({error.verify_message})"
