from __future__ import annotations

import asyncio

import grpc.aio
import pytest

from paceline.server.streams import end_tasks


async def test_a_slip_of_ours_in_a_stream_is_told_and_a_peer_that_is_gone_is_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def fail(error: Exception) -> None:
        raise error

    async def hang() -> None:
        await asyncio.Event().wait()

    hanging = asyncio.create_task(hang())
    failing = [asyncio.create_task(fail(error)) for error in (KeyError("slip"), grpc.aio.UsageError("gone"))]
    await asyncio.wait(failing)
    await end_tasks(hanging, *failing)
    assert hanging.cancelled()
    printed = "".join(capsys.readouterr())
    assert "slip" in printed
    assert "gone" not in printed
