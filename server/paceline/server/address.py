"""Where the server listens: parsed, judged and tried before anything else is begun."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass

from paceline.errors import SettingsError, UsageError
from paceline.settings import RunSettings
from paceline.tls import read_tls
from paceline.tokens import read_tokens

_BIND = re.compile(r"(\[[0-9A-Fa-f:.%\w]+\]|[^:\[\]]+):(\d{1,5})")


@dataclass(frozen=True, slots=True)
class Address:
    """A host (IPv6 in brackets) and a port; port 0 asks for a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Only this machine can reach it."""
        return is_loopback_host(self.host)


def is_loopback_host(host: str) -> bool:
    """Tell whether only this machine can reach what listens there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def parse_bind(bind: str, *, insecure: bool, tls: bool = False) -> Address:
    """Read HOST:PORT and see whether the server may listen there.

    Args:
        insecure: others may reach it though nothing is encrypted.
        tls: all is encrypted.

    Raises:
        UsageError: it is not HOST:PORT.
        SettingsError: others could reach it, and neither was said.
    """
    match = _BIND.fullmatch(bind)
    if match is None or int(match[2]) > 65535:
        raise UsageError(f"bind is {bind!r}: expected HOST:PORT, such as 127.0.0.1:7070 or [::1]:7070")
    address = Address(match[1], int(match[2]))
    if not address.is_loopback and not insecure and not tls:
        raise SettingsError(
            f"bind is {bind!r}, which other machines can reach, and nothing is encrypted: expected --tls-dir "
            "(see `paceline certs init`), a loopback address, or --insecure on a network you trust"
        )
    return address


def check_listening(settings: RunSettings) -> None:
    """See before anything is begun whether the server can listen as it is told.

    Raises:
        UsageError: the port cannot be had, or there is no file of tokens.
        SettingsError: others could reach it or its page unguarded, or its certificates would not be accepted.
    """
    address = parse_bind(settings.bind, insecure=settings.insecure, tls=settings.tls_dir is not None)
    _check_page(settings)
    if settings.tls_dir is not None:
        read_tls(settings.tls_dir, "server")
    if settings.tokens is not None:
        read_tokens(settings.tokens)
    check_free(address)


def _check_page(settings: RunSettings) -> None:
    """See before anything is begun whether the page may be served as it is told.

    Raises:
        SettingsError: others could see it without a token, or read it on the way.
    """
    if settings.web_port is None or settings.insecure or is_loopback_host(settings.web_host):
        return
    lacking = [
        option for option, value in (("--tokens", settings.tokens), ("--tls-dir", settings.tls_dir)) if value is None
    ]
    if lacking:
        raise SettingsError(
            f"web-host is {settings.web_host!r}, which other machines can reach: expected {' and '.join(lacking)} too, "
            "a loopback address (`ssh -L` brings it to yours), or --insecure on a network you trust"
        )


def check_free(address: Address) -> None:
    """Try to listen, so that a port that cannot be had is one clear line and no half-started server.

    Raises:
        UsageError: the port is taken, not allowed, or the host is not this machine's.
    """
    try:
        found = socket.getaddrinfo(address.host.strip("[]"), address.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UsageError(
            f"bind host {address.host!r} is unknown: expected a name or address of this machine"
        ) from error
    family, kind, protocol, _, where = found[0]
    with socket.socket(family, kind, protocol) as probe:
        # As gRPC does: else connections of an earlier server that linger would look like another server.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(where)
            probe.listen()
        except OSError as error:
            raise UsageError(
                f"port {address.port} on {address.host} is taken or not to be had: {error.strerror}"
            ) from error
