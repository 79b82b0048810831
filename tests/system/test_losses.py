"""Workers killed one after another, or all at once, or frozen: rounds go on, and the bits are the same."""

from __future__ import annotations

import functools
import math
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from paceline.server.ledger_reader import LedgerEvent, LedgerReader
from tests.jobs import DigitsLike
from tests.reference import reference_run
from tests.system.cluster import Cluster, assert_bit_equal, cluster, until
from tests.system.proxy import Proxy

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(400)]

JOB = "tests/jobs.py:DigitsLike"
TASKS, MICRO_BATCH, SEED = 12, 8, 5
NAMES = ("a", "b", "c", "d", "e", "f")
# A round of six workers takes at least 2 * 0.1 s; everything travels over the data channel.
DELAY = ("--delay", "const:0.1")
SILENT_S = 3.0


def server_args(rounds: int, min_workers: int) -> tuple[str, ...]:
    return (
        *("--rounds", str(rounds), "--tasks", str(TASKS), "--micro-batch", str(MICRO_BATCH), "--seed", str(SEED)),
        *("--sums", "exact", "--policy", "uniform", "--inline-bytes", "0", "--silent-after", str(SILENT_S)),
        *("--min-workers", str(min_workers)),
    )


@functools.cache
def undisturbed(rounds: int) -> dict[str, torch.Tensor]:
    ids = [range(k * TASKS, (k + 1) * TASKS) for k in range(rounds)]
    return reference_run(DigitsLike(), ids, seed=SEED, micro_batch=MICRO_BATCH).state


def assert_each_task_once(run: Cluster, rounds: int) -> None:
    with LedgerReader(run.run_dir / "ledger.sqlite") as ledger:
        applied = ledger.task_ids_by_round()
    assert list(applied) == list(range(1, rounds + 1))
    assert list(applied.values()) == [list(range(k * TASKS, (k + 1) * TASKS)) for k in range(rounds)]


def events_of(run: Cluster) -> list[LedgerEvent]:
    with LedgerReader(run.run_dir / "ledger.sqlite") as ledger:
        return ledger.events()


def test_a_worker_of_six_killed_every_two_seconds_costs_no_task(tmp_path: Path) -> None:
    rounds, chance = 140, random.Random(17)
    with cluster(tmp_path, JOB, *server_args(rounds, len(NAMES)), json_log=True) as run:
        living = {name: run.worker(name, *DELAY) for name in NAMES}
        run.at_round(3)
        last = time.monotonic()
        kills: list[tuple[str, float]] = []
        seen = []

        def joined() -> list[str]:
            """Name who can be lost: the killed may be slow to come back, and some must stay to compute."""
            if time.monotonic() < last + 2.0:
                return []
            status = run.status()
            names = sorted(str(worker["name"]) for worker in status["workers"] if worker["state"] in ("free", "busy"))
            if len(names) < len(NAMES) // 2:
                return []
            seen.append(int(status["round"]))
            return names

        while len(kills) < 25:
            victim = chance.choice(until(joined, "two seconds, and half of the workers"))
            last = time.monotonic()
            kills.append((victim, time.time()))
            living[victim].kill()
            living[victim].wait(10)
            living[victim] = run.worker(victim, *DELAY)
        assert seen[-1] > seen[len(seen) // 2] > seen[0], f"rounds did not go on: {seen}"
        run.end("server")
        assert_each_task_once(run, rounds)
        assert_bit_equal(run.model(), undisturbed(rounds))
        # A loss plans its tasks again in the same step.
        losses = run.logged("worker lost")
        waits = sorted(
            min((loss["at"] - at for loss in losses if loss["worker"] == victim and loss["at"] > at), default=math.inf)
            for victim, at in kills
        )
        assert len(losses) >= len(kills)
        assert waits[len(waits) // 2] < 2.0, waits
        for process in living.values():
            assert process.wait(30) == 0


def test_after_the_loss_of_all_workers_the_first_to_come_back_goes_on(tmp_path: Path) -> None:
    rounds = 40
    with cluster(tmp_path, JOB, *server_args(rounds, len(NAMES))) as run:
        living = {name: run.worker(name, *DELAY) for name in NAMES}
        run.at_round(5)
        for process in living.values():
            process.kill()
        for process in living.values():
            process.wait(10)
        until(lambda: {run.worker_state(name) for name in NAMES} == {"lost"}, "all are lost")
        alone_s = float(run.status()["elapsed_s"])
        until(lambda: run.status().get("elapsed_s", 0.0) >= alone_s + 10.0, "the server was alone for ten seconds")
        living = {name: run.worker(name, *DELAY) for name in NAMES}
        run.end("server")
        assert_each_task_once(run, rounds)
        assert_bit_equal(run.model(), undisturbed(rounds))
        joined_s = min(event.at_s for event in events_of(run) if event.kind == "ready" and event.at_s > alone_s)
        assert joined_s >= alone_s + 10.0
        with LedgerReader(run.run_dir / "ledger.sqlite") as ledger:
            commits = [record.opened_s + record.seconds for record in ledger.rounds()]
        first_s = min(commit_s for commit_s in commits if commit_s > alone_s)
        assert joined_s < first_s < joined_s + 5.0
        for process in living.values():
            assert process.wait(30) == 0


def test_a_worker_frozen_for_thirty_seconds_finds_its_lease_void(tmp_path: Path) -> None:
    """It is frozen in mid-task; its next session is held up, so that its push is the first thing that it says."""
    rounds, names = 80, ("a", "b", "c")
    with cluster(tmp_path, JOB, *server_args(rounds, len(names))) as run, Proxy(run.address) as proxy:
        run.worker("a", *DELAY)
        run.worker("c", *DELAY)
        frozen = run.worker("b", "--delay", "const:0.3", address=proxy.address)
        run.at_round(5)
        proxy.hold_when(lambda link: link.number > 1)
        frozen.send_signal(signal.SIGSTOP)
        began_s = float(run.status()["elapsed_s"])
        until(lambda: run.worker_state("b") == "lost", "the frozen worker is lost")
        lost_at = int(run.status()["round"])
        until(lambda: run.status().get("elapsed_s", 0.0) >= began_s + 30.0, "thirty seconds")
        assert int(run.status()["round"]) > lost_at + 20, "the others went on"
        assert "push refused" not in run.log("server")
        frozen.send_signal(signal.SIGCONT)
        until(lambda: "push refused" in run.log("server"), "its push is refused")
        proxy.release()
        run.end("server")
        run.end("a", "b", "c")
        refused = [line for line in run.log("server").splitlines() if "push refused" in line]
        assert len(refused) == 1
        assert "reason=stale" in refused[0]
        assert_each_task_once(run, rounds)
        assert_bit_equal(run.model(), undisturbed(rounds))
        kinds = [event.kind for event in events_of(run) if event.worker == "b"]
        assert "ready" in kinds[kinds.index("lost") :]
        with LedgerReader(run.run_dir / "ledger.sqlite") as ledger:
            longest_s = max(record.seconds for record in ledger.rounds())
        # Its deadline, and what its tasks take the others.
        assert SILENT_S < longest_s < SILENT_S + 3.0
