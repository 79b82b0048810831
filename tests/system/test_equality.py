"""Who computed what does not matter: real clusters against the single-process reference, bit for bit."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from paceline.server.ledger_reader import LedgerReader
from tests.jobs import DigitsLike, DigitsLikeAdam, DigitsLikeFloat64
from tests.reference import ReferenceResult, reference_run
from tests.system.cluster import assert_bit_equal, paceline

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

ROUNDS, TASKS, MICRO_BATCH, SEED = 200, 7, 8, 1
JOBS = {job.__name__: job for job in (DigitsLike, DigitsLikeAdam, DigitsLikeFloat64)}
# Five unequal workers: none of them waits for the cores only.
UNEQUAL = ("--workers", "5", "--delay", "const:0,const:0.001,const:0.002,exp:0.002,uniform:0.001:0.004")
MEANS = ("--means", "0.001,0.002,0.003,0.003,0.0035")
# One of each is quick, the others come with the slow tests.
POLICIES = ["ata-empirical", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ata", "uniform", "fixed"))]
OPTIMIZED = ["DigitsLike", pytest.param("DigitsLikeAdam", marks=pytest.mark.slow)]


@functools.cache
def reference(job: str, rounds: int, exact: bool = True) -> ReferenceResult:
    ids = [range(k * TASKS, (k + 1) * TASKS) for k in range(rounds)]
    return reference_run(JOBS[job](), ids, seed=SEED, micro_batch=MICRO_BATCH, exact=exact)


def train(folder: Path, job: str, *args: str, rounds: int = ROUNDS) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    from safetensors.torch import load_file

    out = folder / "out.json"
    numbers = ["--tasks", str(TASKS), "--micro-batch", str(MICRO_BATCH), "--rounds", str(rounds), "--seed", str(SEED)]
    files = ["--run-dir", str(folder / "run"), "--json", str(out)]
    done = paceline("run", f"tests/jobs.py:{job}", *numbers, *files, *args)
    assert done.returncode == 0, done.stderr[-4000:]
    return load_file(folder / "run" / "model.safetensors"), json.loads(out.read_text())


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("job", OPTIMIZED)
def test_five_unequal_workers_give_the_reference_bit_for_bit(tmp_path: Path, job: str, policy: str) -> None:
    means = MEANS if policy == "fixed" else ()
    model, summary = train(tmp_path, job, "--policy", policy, "--sums", "exact", *UNEQUAL, *means)
    expected = reference(job, ROUNDS)
    assert_bit_equal(model, expected.state)
    assert summary["loss"] == expected.losses
    assert summary["tasks"] == {"planned": ROUNDS * TASKS, "used": ROUNDS * TASKS, "wasted": 0, "replanned": 0}
    assert sum(worker["tasks"] > 0 for worker in summary["workers"]) > 1


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("job", OPTIMIZED)
def test_one_worker_gives_the_reference_bit_for_bit(tmp_path: Path, job: str, policy: str) -> None:
    means = ("--means", "0.01") if policy == "fixed" else ()
    model, _ = train(tmp_path, job, "--policy", policy, "--sums", "exact", "--workers", "1", *means)
    assert_bit_equal(model, reference(job, ROUNDS).state)


@pytest.mark.slow
def test_greedy_gives_the_reference_fed_with_the_ledgers_ids(tmp_path: Path) -> None:
    model, summary = train(tmp_path, "DigitsLike", "--policy", "greedy", "--sums", "exact", *UNEQUAL)
    with LedgerReader(tmp_path / "run" / "ledger.sqlite") as ledger:
        rounds = list(ledger.task_ids_by_round().values())
    assert [len(tasks) for tasks in rounds] == [TASKS] * ROUNDS
    applied = [task for tasks in rounds for task in tasks]
    assert len(set(applied)) == len(applied)
    expected = reference_run(DigitsLike(), rounds, seed=SEED, micro_batch=MICRO_BATCH)
    assert_bit_equal(model, expected.state)
    assert summary["tasks"]["used"] == ROUNDS * TASKS


def test_fast_sums_stay_near_the_reference(tmp_path: Path) -> None:
    rounds = 20
    model, _ = train(tmp_path, "DigitsLike", "--policy", "uniform", *UNEQUAL, rounds=rounds)
    expected = reference("DigitsLike", rounds).state
    for name, tensor in model.items():
        if tensor.is_floating_point():
            assert torch.linalg.norm(tensor - expected[name]) <= 2e-5 * torch.linalg.norm(expected[name]), name


@pytest.mark.slow
def test_a_float64_model_stays_at_the_reference(tmp_path: Path) -> None:
    model, _ = train(tmp_path, "DigitsLikeFloat64", "--policy", "uniform", *UNEQUAL, rounds=40)
    expected = reference("DigitsLikeFloat64", 40).state
    for name, tensor in model.items():
        if tensor.is_floating_point():
            assert torch.linalg.norm(tensor - expected[name]) <= 1e-9 * torch.linalg.norm(expected[name]), name
