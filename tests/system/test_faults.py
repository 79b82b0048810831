"""Real faults in real processes: training goes on, bit-equal, each task applied once."""

from __future__ import annotations

import functools
import signal
from pathlib import Path

import pytest
import torch

from paceline.server.ledger_reader import LedgerReader
from paceline.server.past_run import open_run
from paceline.server.replay import Replay
from paceline.server.verdict import Verdict, judge
from tests.jobs import Broad
from tests.reference import reference_run
from tests.system.cluster import Cluster, assert_bit_equal, cluster, until
from tests.system.proxy import Link, Proxy

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

ROUNDS, TASKS, MICRO_BATCH, SEED = 60, 8, 8, 3
JOB = "tests/jobs.py:Broad"
# Everything travels over the data channel; ten milliseconds a task leave time for a fault in mid-round.
SERVER = (
    *("--rounds", str(ROUNDS), "--tasks", str(TASKS), "--micro-batch", str(MICRO_BATCH), "--seed", str(SEED)),
    *("--sums", "exact", "--policy", "uniform", "--inline-bytes", "0", "--silent-after", "3", "--min-workers", "3"),
)
DELAY = ("--delay", "const:0.01")


@functools.cache
def expected() -> dict[str, torch.Tensor]:
    ids = [range(k * TASKS, (k + 1) * TASKS) for k in range(ROUNDS)]
    return reference_run(Broad(), ids, seed=SEED, micro_batch=MICRO_BATCH).state


def assert_trained(run: Cluster, *ended: str) -> None:
    run.end("server")
    run.end(*ended)
    with LedgerReader(run.run_dir / "ledger.sqlite") as ledger:
        rounds = ledger.task_ids_by_round()
    assert [sorted(tasks) for tasks in rounds.values()] == [
        list(range(k * TASKS, (k + 1) * TASKS)) for k in range(ROUNDS)
    ]
    assert_bit_equal(run.model(), expected())


def events_of(run: Cluster, worker: str) -> list[str]:
    with LedgerReader(run.run_dir / "ledger.sqlite") as ledger:
        return [event.kind for event in ledger.events() if event.worker == worker]


def test_a_killed_worker_costs_only_its_own_leases(tmp_path: Path) -> None:
    with cluster(tmp_path, JOB, *SERVER) as run:
        for name in ("a", "b", "c"):
            run.worker(name, *DELAY)
        run.at_round(5)
        run.processes["b"].send_signal(signal.SIGKILL)
        run.end("b", code=-signal.SIGKILL)
        assert_trained(run, "a", "c")
        assert "lost" in events_of(run, "b")


@pytest.mark.slow
def test_a_frozen_worker_is_lost_and_comes_back(tmp_path: Path) -> None:
    with cluster(tmp_path, JOB, *SERVER) as run:
        for name in ("a", "b", "c"):
            run.worker(name, *DELAY)
        run.at_round(5)
        run.processes["b"].send_signal(signal.SIGSTOP)
        until(lambda: run.worker_state("b") == "lost", "the frozen worker is lost")
        run.processes["b"].send_signal(signal.SIGCONT)
        assert_trained(run, "a", "b", "c")
        states = events_of(run, "b")
        assert "lost" in states
        assert "ready" in states[states.index("lost") :]


@pytest.mark.slow
def test_a_worker_that_joins_late_changes_nothing(tmp_path: Path) -> None:
    with cluster(tmp_path, JOB, *SERVER, "--min-workers", "2") as run:
        for name in ("a", "b"):
            run.worker(name, *DELAY)
        run.at_round(3)
        run.worker("late", *DELAY)
        assert_trained(run, "a", "b", "late")
        with LedgerReader(run.run_dir / "ledger.sqlite") as ledger:
            assert any(lease.worker == "late" for k in range(ROUNDS) for lease in ledger.leases(k + 1))


@pytest.mark.slow
def test_a_drained_worker_leaves_with_zero(tmp_path: Path) -> None:
    with cluster(tmp_path, JOB, *SERVER) as run:
        for name in ("a", "b", "c"):
            run.worker(name, *DELAY)
        run.at_round(5)
        run.processes["b"].send_signal(signal.SIGTERM)
        run.end("b")
        assert run.server.poll() is None, "it was to leave before the end"
        assert_trained(run, "a", "c")
        assert "left" in events_of(run, "b")


def held_in_push(proxy: Proxy) -> Link:
    """Hold the worker's data connection in the middle of a push, and give it."""
    proxy.hold_when(lambda link: link.number == 1 and link.up_bytes > 3_000_000)
    return until(proxy.held, "a push is held")[0]  # type: ignore[no-any-return]


@pytest.mark.slow
def test_control_cut_during_a_push_is_resumed(tmp_path: Path) -> None:
    with cluster(tmp_path, JOB, *SERVER) as run, Proxy(run.address) as proxy:
        for name in ("a", "c"):
            run.worker(name, *DELAY)
        run.worker("b", *DELAY, address=proxy.address)
        held_in_push(proxy)
        assert len(proxy.links) == 2, "control and data have a connection each"
        proxy.cut(proxy.links[0])
        until(lambda: len(proxy.links) > 2, "the control connection is opened again")
        proxy.release()
        assert_trained(run, "a", "b", "c")
        assert proxy.cuts == 1
        assert "lost" not in events_of(run, "b")


@pytest.mark.slow
def test_data_cut_during_a_push_is_pushed_again(tmp_path: Path) -> None:
    with cluster(tmp_path, JOB, *SERVER) as run, Proxy(run.address) as proxy:
        for name in ("a", "c"):
            run.worker(name, *DELAY)
        run.worker("b", *DELAY, address=proxy.address)
        proxy.cut(held_in_push(proxy))
        proxy.release()
        assert_trained(run, "a", "b", "c")
        assert proxy.cuts == 1
        assert not {"lost", "away"} & set(events_of(run, "b"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policy", "args"),
    [
        ("greedy", ("--rounds", "30")),
        ("asgd", ("--rounds", "100")),
        ("malenia", ("--rounds", "20", "--partition", "3")),
    ],
)
def test_a_worker_killed_under_other_policies_leaves_what_the_ledger_says(
    tmp_path: Path, policy: str, args: tuple[str, ...]
) -> None:
    """They use what comes first, so there is no reference run; but each task once, and the replay is the model."""
    with cluster(tmp_path, JOB, *SERVER, "--policy", policy, *args) as run:
        for name in ("a", "b", "c"):
            run.worker(name, *DELAY)
        run.at_round(5)
        run.processes["b"].kill()
        if policy == "malenia":
            # It stands still until somebody takes the lost part over.
            run.worker("d", *DELAY)
            run.end("d")
        run.end("server", "a", "c")
    with LedgerReader(run.run_dir / "ledger.sqlite") as ledger:
        applied = [task for tasks in ledger.task_ids_by_round().values() for task in tasks]
    assert len(applied) == len(set(applied))
    assert "lost" in events_of(run, "b")
    with open_run(run.run_dir) as past:
        judgement = judge(past, Replay(past))
    assert judgement.verdict is Verdict.BIT_EQUAL, judgement
