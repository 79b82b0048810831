"""The soak of benchmarks/chaos, in short: a server does not grow while its workers come and go."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.chaos.soak import CHURN_S, FLAT, TARGET_MB_PER_MIN, soak

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(500)]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_a_server_does_not_grow_while_workers_are_killed_and_drained(tmp_path: Path) -> None:
    minutes, warm_up_minutes = 3.0, 1.25
    found = soak(tmp_path, minutes, warm_up_minutes)
    assert found["killed"] + found["drained"] == int(60 * minutes / CHURN_S)
    assert found["rss_growth_mb_per_min"] < TARGET_MB_PER_MIN, found
    assert found["descriptors"]["last"] <= found["descriptors"]["first"] + FLAT, found
    assert found["threads"]["last"] <= found["threads"]["first"] + FLAT, found
    assert found["rounds"] > 100, found
