from __future__ import annotations

import asyncio
import re
import socket
import threading
import time
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from paceline.coordination.effects import RefusePush
from paceline.coordination.events import Rejection
from paceline.coordination.ids import PushId, WorkerName
from paceline.coordination.snapshot import Snapshot
from paceline.errors import UsageError
from paceline.server import metrics as metrics_module
from paceline.server.metrics import Metrics
from paceline.server.totals import Totals
from paceline.server.traffic import Traffic
from tests.server.records import lease_record, round_record, snapshot, worker_snapshot

WORKERS = (
    worker_snapshot("w1"),
    worker_snapshot("w2", state="joining", mean_task_s=None),
    worker_snapshot("w3", state="lost"),
)


KEPT = len(lease_record(1, 0, "w1").kept)


@pytest.fixture
async def served() -> AsyncIterator[tuple[Totals, int]]:
    totals = Totals()
    metrics = Metrics(totals, lambda: snapshot(*WORKERS), Traffic(pulled_bytes=700, pushed_bytes=300), "greedy")
    port = metrics.start("127.0.0.1", 0)
    yield totals, port
    metrics.close()


def get(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        text: str = answer.read().decode()
    return text


async def scrape(port: int) -> dict[str, float]:
    text = await asyncio.to_thread(get, port)
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


async def test_a_scrape_tells_rounds_tasks_seconds_bytes_and_what_was_learned(served: tuple[Totals, int]) -> None:
    totals, port = served
    for number in (1, 2, 3):
        totals.observe(round_record(number, loss=0.25 * number))
    # Computed at versions 0, 4 and 9 for rounds 1, 5 and 30: 0, 0 and 20 versions behind, three tasks each.
    for lease in (lease_record(1, 0, "w1"), lease_record(5, 0, "w1"), replace(lease_record(30, 1, "w2"), version=9)):
        totals.observe(lease)
    totals.observe(RefusePush(PushId(1), Rejection.STALE, "too late"))
    found = await scrape(port)
    expected = {
        "paceline_rounds_total": 3,
        "paceline_round_seconds_count": 3,
        "paceline_round_seconds_sum": pytest.approx(1.506),
        "paceline_round_seconds_bucket{le=0.3}": 0,
        "paceline_round_seconds_bucket{le=1.0}": 3,
        "paceline_round_seconds_bucket{le=+Inf}": 3,
        "paceline_task_staleness_versions_count": 3 * KEPT,
        "paceline_task_staleness_versions_sum": 20 * KEPT,
        "paceline_task_staleness_versions_bucket{le=0.0}": 2 * KEPT,
        "paceline_task_staleness_versions_bucket{le=16.0}": 2 * KEPT,
        "paceline_task_staleness_versions_bucket{le=32.0}": 3 * KEPT,
        "paceline_tasks_planned_total{worker=w1}": 12,
        "paceline_tasks_used_total{worker=w2}": 9,
        "paceline_tasks_wasted_total{worker=w1}": 3,
        "paceline_tasks_replanned_total{worker=w1}": 3,
        "paceline_worker_seconds_total{use=used,worker=w1}": pytest.approx(0.9),
        "paceline_worker_seconds_total{use=wasted,worker=w1}": pytest.approx(0.3),
        "paceline_barrier_idle_seconds_total{worker=w2}": pytest.approx(0.15),
        "paceline_learned_task_seconds{worker=w1}": 0.1,
        "paceline_learned_task_radius_seconds{worker=w1}": 0.02,
        "paceline_received_bytes_total": 300,
        "paceline_sent_bytes_total": 700,
        "paceline_workers_connected": 2,
        "paceline_contributions_rejected_total{reason=stale}": 1,
        "paceline_contributions_rejected_total{reason=checksum}": 0,
        "paceline_version": 3,
        "paceline_loss": 0.75,
    }
    assert {name: found.get(name) for name in expected} == expected
    assert "paceline_learned_task_seconds{worker=w2}" not in found
    assert any(name.startswith("paceline_build_info{policy=greedy") for name in found)
    assert found["process_resident_memory_bytes"] > 0


async def test_a_scrape_before_the_first_round_succeeds(served: tuple[Totals, int]) -> None:
    found = await scrape(served[1])
    assert found["paceline_rounds_total"] == 0
    assert "paceline_loss" not in found


async def test_labels_are_bounded_and_their_sums_lose_nothing(
    served: tuple[Totals, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_module, "WORKER_LABELS", 3)
    totals, port = served
    for name in ("a", "b", "c", "d", "e", "f"):
        totals.observe(round_record(1, names=[name]))
    found = await scrape(port)
    used = {name: value for name, value in found.items() if name.startswith("paceline_tasks_used_total")}
    labels = {f"paceline_tasks_used_total{{worker={name}}}" for name in ("a", "b", "c", "other")}
    assert set(used) == labels
    assert used["paceline_tasks_used_total{worker=other}"] == 9


async def test_a_scrape_reads_on_the_loop_that_owns_the_sums() -> None:
    read_on = []

    def ask() -> Snapshot:
        read_on.append(threading.current_thread())
        return snapshot(*WORKERS)

    metrics = Metrics(Totals(), ask, Traffic(), "greedy")
    port = metrics.start("127.0.0.1", 0)
    await scrape(port)
    metrics.close()
    assert read_on == [threading.main_thread()]


async def test_a_scrape_of_a_busy_server_comes_back_empty_and_harms_nothing(
    served: tuple[Totals, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_module, "SCRAPE_LIMIT_S", 0.05)
    scraped: list[str] = []
    asking = threading.Thread(target=lambda: scraped.append(get(served[1])))
    asking.start()
    deadline = time.monotonic() + 20
    while not scraped:  # the loop is held here, as by a long computation
        assert time.monotonic() < deadline
        asking.join(0.01)
    assert "paceline_rounds_total" not in scraped[0]
    assert "paceline_rounds_total" in await scrape(served[1])


async def test_a_port_that_is_taken_is_a_clear_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        metrics = Metrics(Totals(), lambda: snapshot(), Traffic(), "greedy")
        with pytest.raises(UsageError, match=f"--metrics-port {port} on 127.0.0.1 cannot be used: Address already in"):
            metrics.start("127.0.0.1", port)
        metrics.close()


async def test_every_metric_is_documented(served: tuple[Totals, int]) -> None:
    totals, port = served
    totals.observe(round_record(1))
    totals.saves.at_s = 0.0
    text = await asyncio.to_thread(get, port)
    # With prices alone there is a cost, see below.
    told = {*re.findall(r"^# TYPE (paceline_\w+)", text, re.MULTILINE), "paceline_cost_total"}
    # So is the oracle's round where the tasks of one are known.
    told.add("paceline_oracle_round_seconds")
    document = await asyncio.to_thread((Path(__file__).parents[2] / "docs" / "metrics.md").read_text)
    assert set(re.findall(r"^\| `(paceline_\w+)` ", document, re.MULTILINE)) == told


async def test_the_oracles_round_is_told_beside_the_rounds_and_the_evaluation_beside_the_loss() -> None:
    workers = (
        worker_snapshot("w1", mean_task_s=1.0),
        worker_snapshot("w2", mean_task_s=2.0),
        worker_snapshot("w3", mean_task_s=None),
        worker_snapshot("gone", state="lost", mean_task_s=0.001),
    )
    metrics = Metrics(Totals(), lambda: snapshot(*workers), Traffic(), "greedy")
    port = metrics.start("127.0.0.1", 0)
    try:
        assert "paceline_oracle_round_seconds" not in await scrape(port)
        metrics.tasks, metrics.evaluation = 6, {"accuracy": 0.75}
        told = await scrape(port)
        # Four tasks of 1 s beside two of 2 s.
        assert told["paceline_oracle_round_seconds"] == 4.0
        assert told["paceline_evaluation{name=accuracy}"] == 0.75
    finally:
        metrics.close()


async def test_money_is_counted_where_there_are_prices() -> None:
    totals = Totals()
    metrics = Metrics(totals, lambda: snapshot(*WORKERS), Traffic(), "greedy")
    port = metrics.start("127.0.0.1", 0)
    try:
        totals.observe(round_record(1))
        assert not [name for name in await scrape(port) if name.startswith("paceline_cost")]
        metrics.prices = {"*": 3600.0}
        told = await scrape(port)
        for name in ("w1", "w2"):
            sums = totals.workers[WorkerName(name)]
            assert told[f"paceline_cost_total{{worker={name}}}"] == pytest.approx(sums.used_s + sums.wasted_s)
    finally:
        metrics.close()
