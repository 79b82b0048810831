from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from paceline.errors import SettingsError, UsageError
from paceline.server import Started, serve
from paceline.server.address import Address, check_free, parse_bind
from tests.server.raw_worker import settings


@pytest.mark.parametrize(
    ("bind", "host", "port"),
    [("127.0.0.1:7070", "127.0.0.1", 7070), ("localhost:0", "localhost", 0), ("[::1]:70", "[::1]", 70)],
)
def test_host_and_port_are_read(bind: str, host: str, port: int) -> None:
    address = parse_bind(bind, insecure=False)
    assert (address.host, address.port, str(address)) == (host, port, bind)


@pytest.mark.parametrize("bind", ["7070", "localhost", "host:port", "::1:7070", "127.0.0.1:70700", "", ":7070"])
def test_what_is_no_address_is_refused_by_its_value(bind: str) -> None:
    with pytest.raises(UsageError, match=r"expected HOST:PORT") as caught:
        parse_bind(bind, insecure=True)
    assert repr(bind) in str(caught.value)


@pytest.mark.parametrize("bind", ["0.0.0.0:7070", "[::]:7070", "192.0.2.1:7070", "example.org:7070"])
def test_others_may_reach_the_server_only_if_that_is_said(bind: str) -> None:
    with pytest.raises(SettingsError, match="--insecure") as caught:
        parse_bind(bind, insecure=False)
    assert bind in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not parse_bind(bind, insecure=True).is_loopback


def test_a_taken_port_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} on 127.0.0.1 is taken"):
            check_free(Address("127.0.0.1", port))
    check_free(Address("127.0.0.1", port))


def test_a_host_that_is_not_this_machine_cannot_be_bound() -> None:
    with pytest.raises(UsageError, match=r"192\.0\.2\.1"):
        check_free(Address("192.0.2.1", 7070))


async def test_a_server_on_a_taken_port_leaves_nothing_behind(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} "):
            await serve(settings(tmp_path / "run", bind=f"127.0.0.1:{port}"))
    assert not (await asyncio.to_thread((tmp_path / "run").exists))


async def test_a_server_beyond_loopback_says_loudly_that_it_is_insecure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def started(what: Started) -> None:
        raise KeyError(what.address)

    with pytest.raises(SettingsError, match="--insecure"):
        await serve(settings(tmp_path / "run", bind="0.0.0.0:0"))
    with pytest.raises(KeyError, match=r"0\.0\.0\.0:\d+"):
        await serve(settings(tmp_path / "run", bind="0.0.0.0:0", insecure=True), on_started=started)
    printed = capsys.readouterr()
    assert "INSECURE" in printed.out + printed.err
