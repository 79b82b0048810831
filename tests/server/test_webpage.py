"""The live page over real HTTP: its files, its data, and who gets them."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from paceline.certificates import make_certificates
from paceline.errors import SettingsError, UsageError
from paceline.server import webpage as webpage_module
from paceline.server.address import check_listening
from paceline.server.picture import START, Cursor
from paceline.server.webpage import PAGE, WebPage
from paceline.settings import RunSettings
from paceline.tls import Tls, read_tls
from tests.server.raw_worker import LIMIT_S, own_address

GOOD = "pl_good"


def look(address: str, token: str) -> tuple[grpc.StatusCode, str]:
    if token == GOOD:
        return grpc.StatusCode.OK, ""
    return grpc.StatusCode.UNAUTHENTICATED, f"{address} has no token"


def anybody(address: str, token: str) -> tuple[grpc.StatusCode, str]:
    return grpc.StatusCode.OK, ""


@asynccontextmanager
async def page(
    look: webpage_module.Look = anybody, host: str = "127.0.0.1", tls: Tls | None = None
) -> AsyncIterator[str]:
    asked: list[Cursor] = []

    def documents(has: Cursor) -> dict[str, Any]:
        asked.append(has)
        return {"asked": [str(cursor) for cursor in asked]}

    served = WebPage(look, documents)
    url = served.start("127.0.0.1", 0, tls)
    try:
        yield url
    finally:
        served.close()


def get(url: str, headers: Mapping[str, str] = {}, context: ssl.SSLContext | None = None) -> tuple[int, str, Any]:
    request = urllib.request.Request(url, headers=dict(headers))
    try:
        with urllib.request.urlopen(request, timeout=LIMIT_S, context=context) as answer:
            return answer.status, answer.read().decode(), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(), error.headers


async def test_all_files_that_the_page_names_are_served() -> None:
    async with page() as url:
        status, text, headers = await asyncio.to_thread(get, url)
        assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert "default-src 'self'" in headers["Content-Security-Policy"]
        for name in ("page.js", "charts.js", "uPlot.js", "page.css", "uPlot.css"):
            assert f'"{name}"' in text
            status, file, _ = await asyncio.to_thread(get, url + name)
            assert (status, file) == (200, (PAGE / name).read_text())
        assert "http://" not in text
        assert "https://" not in text


@pytest.mark.parametrize(
    "path", ["x", "../app.py", "..%2Fapp.py", "page/page.js", ".", "uPlot.LICENSE", "__init__.py", "%00"]
)
async def test_other_files_are_not(path: str) -> None:
    async with page() as url:
        status, text, _ = await asyncio.to_thread(get, url + path)
        assert status == 404
        assert "there is no" in json.loads(text)["error"]


async def test_data_are_what_is_new_for_the_cursor() -> None:
    async with page() as url:
        await asyncio.to_thread(get, f"{url}data?cursor=1.2.3.4.5.6.7")
        status, text, headers = await asyncio.to_thread(get, f"{url}data?cursor=nonsense&cursor=%ff")
        assert (status, headers["Cache-Control"]) == (200, "no-store")
        assert json.loads(text)["asked"] == ["1.2.3.4.5.6.7", str(START)]


async def test_who_has_no_good_token_sees_nothing() -> None:
    async with page(look) as url:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": GOOD}):
            status, text, _ = await asyncio.to_thread(get, url + "data", headers)
            assert (status, json.loads(text)) == (401, {"error": "127.0.0.1 has no token"})
        status, _, _ = await asyncio.to_thread(get, url + "data", {"Authorization": f"Bearer {GOOD}"})
        assert status == 200


async def test_a_name_that_another_site_made_lead_here_is_refused() -> None:
    async with page() as url:
        for host in ("evil.example", "evil.example:80", "", "a b"):
            status, text, _ = await asyncio.to_thread(get, url + "data", {"Host": host})
            assert (status, "own names alone" in text) == (421, True), host
        for host in ("localhost", "127.0.0.1:9", "[::1]:9"):
            status, _, _ = await asyncio.to_thread(get, url + "data", {"Host": host})
            assert status == 200, host


@pytest.mark.parametrize(("tokens", "status"), [(False, 421), (True, 200)])
async def test_beyond_this_machine_it_answers_to_other_names_only_where_it_asks_for_tokens(
    tokens: bool, status: int
) -> None:
    served = WebPage(anybody, lambda has: {})
    url = served.start("0.0.0.0", 0, None, tokens=tokens).replace("0.0.0.0", "127.0.0.1")
    try:
        for host, expected in (("evil.example", status), (own_address(), 200), (socket.gethostname(), 200)):
            got, _, _ = await asyncio.to_thread(get, url + "data", {"Host": host})
            assert got == expected, host
    finally:
        served.close()


async def test_nothing_but_get_is_answered_and_nonsense_ends_nothing() -> None:
    async with page() as url:
        port = int(url.rsplit(":", 1)[1].strip("/"))

        def say(words: bytes) -> bytes:
            with socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S) as peer:
                peer.sendall(words)
                peer.shutdown(socket.SHUT_WR)
                told = b""
                while more := peer.recv(4096):
                    told += more
                return told

        assert b" 501 " in await asyncio.to_thread(say, b"POST /data HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"400" in await asyncio.to_thread(say, b"\x16\x03\x01 nonsense\r\n\r\n")
        assert b" 414 " in await asyncio.to_thread(say, b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n")
        assert (await asyncio.to_thread(get, url))[0] == 200


@pytest.mark.parametrize("limit", ["MOST_CONNECTIONS", "MOST_OF_ONE"])
async def test_only_so_many_connections_are_served(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setattr(webpage_module, limit, 3)
    async with page() as url:
        port = int(url.rsplit(":", 1)[1].strip("/"))
        silent = [socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S) for _ in range(3)]

        def refused() -> bool:
            with socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S) as peer:
                peer.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                try:
                    return peer.recv(1) == b""
                except ConnectionResetError:
                    return True

        assert await asyncio.to_thread(refused)
        for peer in silent:
            peer.close()
        async with asyncio.timeout(LIMIT_S):
            while await asyncio.to_thread(refused):
                pass


async def test_with_certificates_it_is_https(tmp_path: Path) -> None:
    make_certificates(tmp_path, ["127.0.0.1"], 30)
    async with page(tls=read_tls(tmp_path, "server")) as url:
        assert url.startswith("https://")
        context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        status, _, _ = await asyncio.to_thread(get, url + "data", {}, context)
        assert status == 200


async def test_a_taken_port_is_named() -> None:
    async with page() as url:
        port = int(url.rsplit(":", 1)[1].strip("/"))
        with pytest.raises(UsageError, match=f"--web-port {port} on 127.0.0.1 cannot be used"):
            WebPage(anybody, lambda has: {}).start("127.0.0.1", port, None)


async def test_who_asks_without_end_gets_a_share_of_the_loop() -> None:
    made = 0

    def slow(has: Cursor) -> dict[str, Any]:
        nonlocal made
        made += 1
        began = time.perf_counter()
        while time.perf_counter() < began + 0.02:
            pass
        return {}

    served = WebPage(anybody, slow)
    url = served.start("127.0.0.1", 0, None)
    began = time.perf_counter()
    try:
        await asyncio.gather(*(asyncio.to_thread(get, url + "data") for _ in range(8)))
        # Eight of 0.02 s each take five times as long.
        assert (made, time.perf_counter() - began > 0.7) == (8, True)
    finally:
        served.close()


async def test_a_document_that_cannot_be_made_is_no_traceback_for_a_stranger() -> None:
    def broken(has: Cursor) -> dict[str, Any]:
        raise ValueError("a bug")

    served = WebPage(anybody, broken)
    url = served.start("127.0.0.1", 0, None)
    try:
        status, text, _ = await asyncio.to_thread(get, url + "data")
        assert (status, "a bug" in text) == (500, False)
    finally:
        served.close()


@pytest.mark.parametrize(
    ("settings", "lacking"),
    [
        ({}, "--tokens and --tls-dir"),
        ({"tokens": Path("tokens.json")}, "--tls-dir"),
        ({"tls_dir": Path("tls")}, "--tokens"),
    ],
)
def test_beyond_this_machine_it_needs_tokens_and_tls(settings: dict[str, Any], lacking: str) -> None:
    told = RunSettings(job="j.py:J", web_port=0, web_host="0.0.0.0", bind="127.0.0.1:0", **settings)
    with pytest.raises(SettingsError, match=f"expected {lacking} too"):
        check_listening(told)


def test_or_somebody_who_says_that_he_trusts_the_network() -> None:
    check_listening(RunSettings(job="j.py:J", web_port=0, web_host="0.0.0.0", bind="127.0.0.1:0", insecure=True))
    check_listening(RunSettings(job="j.py:J", web_host="0.0.0.0", bind="127.0.0.1:0"))
