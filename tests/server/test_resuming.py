"""Going on with a run, in this process: what is taken over, what is refused, and what is let go again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from paceline.coordination.effects import Outcome
from paceline.errors import NothingToResume, UsageError
from paceline.server.app import make_server
from paceline.server.resuming import FIXED, take_up
from paceline.settings import RunSettings, SharedSettings
from tests.server.raw_worker import RawWorker, Run, serving, settings

# Of what workers are told too, these decide nothing of any version.
OF_THE_WIRE = {"heartbeat_s", "inline_bytes"}


def told(tmp_path: Path, **changes: Any) -> RunSettings:
    return settings(tmp_path / "run", **{"rounds": 6, "checkpoint_every": "1", "sums": "fast", **changes})


async def stopped_after(tmp_path: Path, rounds: int) -> dict[str, Any]:
    """Leave a run that was stopped after so many rounds; give its summary."""
    async with serving(told(tmp_path)) as run, RawWorker(run.address) as worker:
        await worker.join()
        for _ in range(rounds):
            await worker.work()
        await worker.hear("lease")
        run.server.stop("enough")
        return (await run.end()).summary


async def resumed(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    """Go on with it to its end; give its summary."""
    server = make_server(told(tmp_path, **changes), tmp_path / "run")
    await server.start()
    run = Run(server)
    async with RawWorker(run.address) as worker:
        await worker.join()
        while not run.over.is_set():
            await worker.work()
        result = await run.end()
    assert result.outcome is Outcome.DONE
    return result.summary


async def test_counters_and_losses_go_on(tmp_path: Path) -> None:
    before = await stopped_after(tmp_path, 2)
    assert (before["rounds"], before["checkpoint"]) == (2, 2)
    after = await resumed(tmp_path, rounds=3)
    assert (after["rounds"], after["tasks"]["used"], after["checkpoint"]) == (3, 6, 3)
    assert after["loss"][:2] == before["loss"]
    assert after["bytes"]["pushed"] > before["bytes"]["pushed"]
    assert after["worker_s"] > before["worker_s"]
    assert after["workers"][0]["tasks"] == 6


async def test_run_that_cannot_be_resumed_is_let_go(tmp_path: Path) -> None:
    await stopped_after(tmp_path, 2)
    for changes in ({"tasks": 8}, {"seed": 9}, {"policy": "greedy"}):
        with pytest.raises(UsageError, match=next(iter(changes))):
            make_server(told(tmp_path, **changes), tmp_path / "run")
    with pytest.raises(UsageError, match="is not that of run"):
        make_server(told(tmp_path, job="tests/jobs.py:Slow"), tmp_path / "run")
    assert (await resumed(tmp_path, rounds=3))["rounds"] == 3


async def test_run_that_is_done_is_nothing_to_resume_and_is_let_go(tmp_path: Path) -> None:
    await stopped_after(tmp_path, 2)
    await resumed(tmp_path, rounds=3)
    for _ in range(2):
        with pytest.raises(NothingToResume, match="say how far"):
            make_server(told(tmp_path, rounds=3), tmp_path / "run")


async def test_server_that_has_it_keeps_others_out(tmp_path: Path) -> None:
    async with serving(told(tmp_path)):
        with pytest.raises(UsageError, match="is in use by another server"):
            take_up(tmp_path / "run", told(tmp_path))


def test_every_setting_that_decides_versions_is_fixed() -> None:
    assert set(RunSettings.model_fields) >= FIXED
    assert set(SharedSettings.model_fields) - FIXED == OF_THE_WIRE
    assert {name for name in RunSettings.model_fields if name.startswith(("k_", "mean"))} <= FIXED
