"""10,000 silent sessions of a hostile client: the server's memory stays flat, and a real worker trains meanwhile."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from pathlib import Path
from statistics import mean

import pytest

from paceline.server.waiting import PER_ADDRESS
from tests.system.cluster import cluster, until
from tests.system.hostile import codes, forwarded, idle_sessions

pytestmark = [pytest.mark.system, pytest.mark.slow]

BATCHES, BATCH = 20, 500
WARM_UP = 4
# What the mean of five batches may grow by from the warm-up to the end, over 5,500 sessions; one jumps by 20 MB.
GROWTH_MB = 8.0


def resident_mb(pid: int) -> float:
    match = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match is not None
    return int(match[1]) / 1024


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@pytest.mark.timeout(300)
def test_ten_thousand_silent_sessions_cost_nothing_and_hinder_nobody(tmp_path: Path) -> None:
    with cluster(tmp_path, "tests/jobs.py:Tiny", "--rounds", "1000000", "--tasks", "4") as run:
        until(run.status, "a server that answers")
        seen: Counter[str] = Counter()
        memory: list[float] = []
        open_files: list[int] = []
        rounds: list[int] = []

        async def attack() -> None:
            async with forwarded(run.address) as address:
                for number in range(BATCHES):
                    if number == WARM_UP:
                        run.worker("w1", "--device", "cpu")
                        await asyncio.to_thread(run.at_round, 2)
                    async with idle_sessions(address, BATCH) as calls:
                        ended = await codes(calls, 30.0, enough=PER_ADDRESS)
                        assert ended["open"] <= PER_ADDRESS, ended
                        seen.update(ended)
                    memory.append(resident_mb(run.server.pid))
                    open_files.append(descriptors(run.server.pid))
                    rounds.append((await asyncio.to_thread(run.status)).get("round", 0))

        asyncio.run(attack())
        print(f"seen {seen}; memory {memory} MB; descriptors {open_files}; rounds {rounds}")
        assert sum(seen.values()) == BATCHES * BATCH
        assert seen["RESOURCE_EXHAUSTED"] >= BATCHES * (BATCH - PER_ADDRESS)
        assert mean(memory[-5:]) - mean(memory[WARM_UP : WARM_UP + 5]) < GROWTH_MB, memory
        assert max(open_files) - open_files[0] < 80, open_files
        assert all(later > earlier for earlier, later in zip(rounds[WARM_UP:], rounds[WARM_UP + 1 :], strict=False))
        assert run.worker_state("w1") in ("free", "busy")
