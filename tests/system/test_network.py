"""A worker behind a network that breaks or is slow: training goes on, and gives the same bits.

Its network is a namespace of its own at the end of a veth pair; packets are dropped by iptables and slowed by tc.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch

from paceline.job import Job
from paceline.server.ledger_reader import LedgerReader
from tests.jobs import DigitsLike, Wide
from tests.reference import reference_run
from tests.system.cluster import PATIENCE_S, Cluster, assert_bit_equal, cluster, until
from tests.system.proxy import Proxy
from tests.system.wire import Wire, has_netem, why_not, wire

pytestmark = [pytest.mark.netns, pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(400)]

TASKS, MICRO_BATCH, SEED = 6, 8, 9
SILENT_S = 5.0
JOBS: dict[str, type[Job]] = {"DigitsLike": DigitsLike, "Wide": Wide}
DELAY = ("--delay", "const:0.1")
CUT_S = 20.0
# What a worker sends is unacknowledged for so long before it gives its connection up; and may then resume it.
UNHEARD_S = 10.0 + 1.0


@pytest.fixture
def far() -> Iterator[Wire]:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with wire() as made:
        yield made


def start(folder: Path, far: Wire, rounds: int, *args: str, job: str = "DigitsLike") -> AbstractContextManager[Cluster]:
    """Start a server that the namespace can reach; everything travels over the data channel."""
    numbers = ("--rounds", str(rounds), "--tasks", str(TASKS), "--micro-batch", str(MICRO_BATCH), "--seed", str(SEED))
    rules = ("--sums", "exact", "--policy", "uniform", "--inline-bytes", "0", "--silent-after", str(SILENT_S))
    return cluster(folder, f"tests/jobs.py:{job}", *numbers, *rules, "--insecure", *args, host=far.host)


@functools.cache
def undisturbed(job: str, rounds: int) -> dict[str, torch.Tensor]:
    ids = [range(k * TASKS, (k + 1) * TASKS) for k in range(rounds)]
    return reference_run(JOBS[job](), ids, seed=SEED, micro_batch=MICRO_BATCH).state


def assert_trained(run: Cluster, rounds: int, job: str = "DigitsLike", patience_s: float = PATIENCE_S) -> float:
    """See that a run ended well with the undisturbed run's parameters, each task applied once.

    Returns:
        The seconds of its longest round.
    """
    run.end("server", patience_s=patience_s)
    run.end()
    with LedgerReader(run.run_dir / "ledger.sqlite") as ledger:
        applied, records = ledger.task_ids_by_round(), ledger.rounds()
    assert list(applied.values()) == [list(range(k * TASKS, (k + 1) * TASKS)) for k in range(rounds)]
    assert_bit_equal(run.model(), undisturbed(job, rounds))
    return max(record.seconds for record in records)


def states_of_b(run: Cluster) -> list[str]:
    with LedgerReader(run.run_dir / "ledger.sqlite") as ledger:
        return [event.kind for event in ledger.events() if event.worker == "b"]


def used_by_b(run: Cluster) -> int:
    with LedgerReader(run.run_dir / "ledger.sqlite") as ledger:
        return sum(len(lease.kept) for lease in ledger.leases() if lease.worker == "b")


def pass_time(run: Cluster, seconds: float) -> None:
    began_s = float(run.status()["elapsed_s"])
    until(lambda: run.status().get("elapsed_s", 0.0) >= began_s + seconds, f"{seconds:g} s")


@pytest.mark.parametrize(("to_worker", "from_worker"), [(True, True), (True, False), (False, True)])
def test_a_network_cut_in_both_directions_or_one_costs_a_deadline(
    tmp_path: Path, far: Wire, to_worker: bool, from_worker: bool
) -> None:
    """One direction: half-open connections. The far worker is lost; the near ones go on; it comes back."""
    rounds = 200
    with start(tmp_path, far, rounds, "--min-workers", "3") as run:
        for name in ("a", "c"):
            run.worker(name, *DELAY)
        run.worker("b", *DELAY, inside=far.inside)
        run.at_round(5)
        far.drop(to_worker=to_worker, from_worker=from_worker)
        pass_time(run, CUT_S)
        assert run.worker_state("b") == "lost"
        at = int(run.status()["round"])
        dropped = far.heal()
        assert dropped > 0
        until(lambda: run.worker_state("b") not in ("lost", "unknown"), "the far worker is back")
        assert at > 25, "the near ones went on"
        longest_s = assert_trained(run, rounds)
        states = states_of_b(run)
        assert "ready" in states[states.index("lost") :]
        # Who speaks and does not hear notices by itself: its connection times out.
        deadline_s = SILENT_S if from_worker else UNHEARD_S
        assert SILENT_S / 2 < longest_s < deadline_s + 3.0


def test_a_network_that_loses_two_percent_loses_no_worker(tmp_path: Path, far: Wire) -> None:
    rounds = 100
    with start(tmp_path, far, rounds, "--min-workers", "2") as run:
        far.drop(to_worker=True, from_worker=True, chance=0.02)
        run.worker("a", *DELAY)
        run.worker("b", *DELAY, inside=far.inside)
        run.at_round(rounds - 1)
        dropped = far.heal()
        assert_trained(run, rounds)
        assert dropped >= 10
        assert "lost" not in states_of_b(run)
        assert used_by_b(run) == rounds * TASKS // 2


def test_a_network_that_takes_200_ms_loses_no_worker(tmp_path: Path, far: Wire) -> None:
    """There and back; where the kernel cannot delay packets a proxy delays the bytes of the connections."""
    rounds = 40
    with start(tmp_path, far, rounds, "--min-workers", "2") as run, Proxy(run.address, delay_s=0.1) as proxy:
        run.worker("a", *DELAY)
        netem = has_netem()
        if netem:
            far.shape("netem", "delay", "100ms")
            run.worker("b", *DELAY, inside=far.inside)
        else:
            run.worker("b", *DELAY, address=proxy.address)
        assert_trained(run, rounds)
        assert netem or proxy.delayed > rounds
        assert "lost" not in states_of_b(run)
        assert used_by_b(run) == rounds * TASKS // 2
        with LedgerReader(run.run_dir / "ledger.sqlite") as ledger:
            shortest_s = min(record.seconds for record in ledger.rounds())
        assert shortest_s > 0.6, "a lease, a pull and a push"


def test_a_slow_network_is_not_a_dead_one(tmp_path: Path, far: Wire) -> None:
    """At 1 Mbit/s a pull takes 8 s and a push 17 s, longer than a worker may go without progress."""
    rounds, patience_s = 2, 5.0
    with start(tmp_path, far, rounds, "--min-workers", "2", "--progress-after", str(patience_s), job="Wide") as run:
        far.shape("tbf", "rate", "1mbit", "burst", "16kb", "latency", "200ms")
        run.worker("a", *DELAY)
        run.worker("b", *DELAY, inside=far.inside)
        assert_trained(run, rounds, "Wide", patience_s=150.0)
        assert far.queued_bytes() > rounds * 3_000_000
        assert "lost" not in states_of_b(run)
        assert used_by_b(run) == rounds * TASKS // 2
