"""Serves the live page: its files to anybody, what the run does to whoever may see it.

The HTTP server is the standard library's, on threads of its own; a document is made on the event loop that owns the
books, as a scrape of metrics is. Nothing is pushed: a page asks,
the less often the more there is to send.
"""

from __future__ import annotations

import asyncio
import gzip
import ipaddress
import json
import socket
import ssl
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import structlog

from paceline.errors import UsageError
from paceline.server.address import is_loopback_host
from paceline.server.failures import address_of
from paceline.server.onloop import LoopBusyError, on_loop
from paceline.server.picture import Cursor, parse_cursor
from paceline.tls import Tls
from paceline.version import __version__

PAGE = Path(__file__).with_name("page")
ANSWER_LIMIT_S = 5.0
# A connection that says nothing for so long is closed, and only so many are served at a time.
SILENT_LIMIT_S = 15.0
MOST_CONNECTIONS = 64
# Of them so many may be one address's.
MOST_OF_ONE = 16
# Of the event loop's time at most this share goes into documents, whoever asks how often.
MOST_SHARE = 0.2
# The end of the server is noticed within so long.
END_POLL_S = 0.1

_TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css"}
_SECURITY = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_STATUS = {
    grpc.StatusCode.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    grpc.StatusCode.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
    grpc.StatusCode.RESOURCE_EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
}

Look = Callable[[str, str], tuple[grpc.StatusCode, str]]
"""(address, token) -> whether he may see the run; see `gate.Gate.look`."""

Documents = Callable[[Cursor], dict[str, Any]]
"""What is new for a page that has some; see `picture.Picture.document`."""


class WebPage:
    """The live page of a run. `start` and `close` belong to the event loop that owns what is shown.

    Args:
        look: at the token of whoever asks; called on the event loop.
        documents: called on the event loop.
    """

    def __init__(self, look: Look, documents: Documents) -> None:
        self._look = look
        self._documents = documents
        self._making = threading.Lock()
        self._server: _HttpServer | None = None
        self._thread: threading.Thread | None = None

    def start(self, host: str, port: int, tls: Tls | None, *, tokens: bool = False) -> str:
        """Begin to serve; `port` 0 takes a free one.

        Args:
            tokens: who asks is asked for one; else the page answers to its machine's own names alone.
        Returns:
            the page's address.

        Raises:
            UsageError: the port is taken or not ours to take.
        """
        self._loop = asyncio.get_running_loop()
        bare = host.strip("[]")
        try:
            names = None if tokens and not is_loopback_host(host) else _names(bare)
            self._server = _HttpServer(bare, port, self._answer, _context(tls), names)
        except OSError as error:
            raise UsageError(f"--web-port {port} on {host} cannot be used: {error.strerror or error}") from error
        self._thread = threading.Thread(target=self._server.serve_forever, args=(END_POLL_S,), name="web", daemon=True)
        self._thread.start()
        scheme = "http" if tls is None else "https"
        shown = f"[{bare}]" if ":" in bare else bare
        return f"{scheme}://{shown}:{self._server.server_address[1]}/"

    def close(self) -> None:
        """Stop to serve."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = self._thread = None

    def _answer(self, address: str, token: str, cursor: str) -> tuple[HTTPStatus, dict[str, Any]]:
        """Answer a request for data, one at a time; called on a thread of the HTTP server."""
        if not self._making.acquire(timeout=ANSWER_LIMIT_S):
            return HTTPStatus.SERVICE_UNAVAILABLE, {"error": "too many ask at once"}
        try:
            return self._make(address, token, cursor)
        finally:
            self._making.release()

    def _make(self, address: str, token: str, cursor: str) -> tuple[HTTPStatus, dict[str, Any]]:
        def make() -> tuple[HTTPStatus, dict[str, Any], float]:
            began_s = time.perf_counter()
            code, reason = self._look(address, token)
            status = _STATUS[code] if reason else HTTPStatus.OK
            document = {"error": reason} if reason else self._documents(parse_cursor(cursor))
            return status, document, time.perf_counter() - began_s

        try:
            status, document, took_s = on_loop(self._loop, make, ANSWER_LIMIT_S)
            time.sleep(took_s * (1.0 / MOST_SHARE - 1.0))
            return status, document
        except LoopBusyError:
            return HTTPStatus.SERVICE_UNAVAILABLE, {"error": "the server is busy or ends"}
        except Exception:
            structlog.get_logger().exception("the live page has a bug")
            return HTTPStatus.INTERNAL_SERVER_ERROR, {"error": "the server could not make this page; its log says why"}


def _names(host: str) -> frozenset[str]:
    """Name a machine as its browser may: another site's name may have been made to lead here."""
    own = () if is_loopback_host(host) else (socket.gethostname().lower(),)
    return frozenset((host.lower(), "localhost", *own))


def _context(tls: Tls | None) -> ssl.SSLContext | None:
    if tls is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(tls.certificate_path, tls.key_path)
    return context


Answer = Callable[[str, str, str], tuple[HTTPStatus, dict[str, Any]]]


class _HttpServer(ThreadingHTTPServer):
    """A thread for each connection, and a limit for these."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 32

    def __init__(
        self, host: str, port: int, answer: Answer, context: ssl.SSLContext | None, names: frozenset[str] | None
    ) -> None:
        self.address_family = _family(host)
        self.answer = answer
        self.names = names
        self._seats: Counter[str] = Counter()
        self._seating = threading.Lock()
        super().__init__((host, port), _Handler)
        if context is not None:
            # The handshake is done by the connection's thread, when it first reads.
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def process_request(self, request: Any, client_address: Any) -> None:
        address = _address(client_address)
        with self._seating:
            full = self._seats.total() >= MOST_CONNECTIONS or self._seats[address] >= MOST_OF_ONE
            if not full:
                self._seats[address] += 1
        if full:
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread is to be had
            self._leave(address)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._leave(_address(client_address))

    def _leave(self, address: str) -> None:
        with self._seating:
            self._seats[address] -= 1
            if not self._seats[address]:
                del self._seats[address]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A peer that went away, or does not speak TLS, is no news."""


def _address(peer: Any) -> str:
    """Give what limits go by, see failures.address_of."""
    host, port = peer[:2]
    return address_of(f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}")


def _family(host: str) -> socket.AddressFamily:
    return socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][0]


class _Handler(BaseHTTPRequestHandler):
    server: _HttpServer
    protocol_version = "HTTP/1.1"
    server_version = f"paceline/{__version__}"
    sys_version = ""
    timeout = SILENT_LIMIT_S

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if not self._host_is_ours():
            self._send_json(
                HTTPStatus.MISDIRECTED_REQUEST,
                {"error": "this page answers to addresses and to its machine's own names alone"},
            )
        elif path == "/data":
            cursor = urllib.parse.parse_qs(query).get("cursor", [""])[0]
            self._send_json(*self.server.answer(_address(self.client_address), self._token(), cursor))
        else:
            self._send_file("index.html" if path == "/" else path.removeprefix("/"))

    def _host_is_ours(self) -> bool:
        """Tell whether a browser means this machine: by a name of its own, or an address, which no site's name is."""
        if self.server.names is None:
            return True
        try:
            host = urllib.parse.urlsplit(f"//{self.headers.get('Host', '')}").hostname or ""
            return host in self.server.names or bool(ipaddress.ip_address(host))
        except ValueError:
            return False

    def _token(self) -> str:
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        return token.strip() if scheme == "Bearer" else ""

    def _send_file(self, name: str) -> None:
        file = PAGE / name
        # A name with a folder in it is none of ours.
        if "/" in name or file.suffix not in _TYPES or not file.is_file():
            self._send_json(HTTPStatus.NOT_FOUND, {"error": f"there is no {name[:80]!r} here"})
            return
        self._send(HTTPStatus.OK, _TYPES[file.suffix], file.read_bytes(), "no-cache")

    def _send_json(self, status: HTTPStatus, document: dict[str, Any]) -> None:
        body = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
        self._send(status, "application/json", body, "no-store")

    def _send(self, status: HTTPStatus, kind: str, body: bytes, caching: str) -> None:
        self.send_response(status)
        if "gzip" in self.headers.get("Accept-Encoding", ""):
            body = gzip.compress(body, 4, mtime=0)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", caching)
        for name, value in _SECURITY.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """A request is no news."""
