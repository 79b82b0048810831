"""Metrics are for this machine, unless it is said that they are for others too."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from urllib.request import urlopen

import pytest
from pydantic import ValidationError

from tests.server.raw_worker import LIMIT_S, own_address, serving, settings


def free_port() -> int:
    with socket.create_server(("", 0)) as free:
        return int(free.getsockname()[1])


def scrape(host: str, port: int) -> str:
    with urlopen(f"http://{host}:{port}/metrics", timeout=LIMIT_S) as answer:
        return str(answer.read().decode())


async def test_metrics_stay_on_loopback_though_workers_come_from_elsewhere(tmp_path: Path) -> None:
    port = free_port()
    async with serving(settings(tmp_path, bind="0.0.0.0:0", insecure=True, metrics_port=port)):
        assert "paceline_version" in await asyncio.to_thread(scrape, "127.0.0.1", port)
        with pytest.raises(OSError, match="refused"):
            await asyncio.to_thread(scrape, own_address(), port)


async def test_metrics_are_for_all_if_that_is_said(tmp_path: Path) -> None:
    port = free_port()
    async with serving(settings(tmp_path, metrics_port=port, metrics_host="0.0.0.0")):
        assert "paceline_version" in await asyncio.to_thread(scrape, own_address(), port)


@pytest.mark.parametrize("host", ["", "a b", "127.0.0.1:80", "http://x", "[::1]:80"])
def test_a_host_that_is_none_is_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(ValidationError, match="metrics-host is"):
        settings(tmp_path, metrics_host=host)
