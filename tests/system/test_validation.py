"""Workers measure versions between rounds: the same metrics and the same bits whoever does it and whoever is killed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from paceline.errors import SettingsError
from paceline.evaluation import validate
from paceline.flat import build_model
from paceline.loading import build_dataset, build_validation
from paceline.server.best import read_best
from paceline.server.ledger_reader import LedgerReader
from paceline.server.preparation import prepare
from paceline.server.verdict import Verdict
from paceline.settings import RunSettings
from paceline.task_loading import TaskLoader
from paceline.tasks import validation_tasks
from paceline.weights import load_init
from tests.jobs import Validated
from tests.system.cluster import cluster, paceline, until
from tests.system.replaying import NUMBERS, replayed, train

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]
slow = pytest.mark.slow


def metrics_of(model: Path, micro_batch: int = 8, seed: int = 2) -> dict[str, float]:
    """Measure saved weights in this process."""
    job = Validated()
    flat = build_model(job, seed)
    load_init(flat, model)
    validation = build_validation(job, seed)
    assert validation is not None
    loader = TaskLoader(job, build_dataset(job, seed, micro_batch), seed, micro_batch, validation=validation)
    return validate(job, flat.module, loader, validation_tasks(micro_batch, len(validation)), seed)


def evaluations(run: Path) -> dict[int, dict[str, float]]:
    with LedgerReader(run / "ledger.sqlite") as ledger:
        return ledger.evaluations()


def test_workers_measure_to_the_bit_what_one_process_would(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    args = ("--sums", "exact", "--eval-every", "7", "--best", "loss:min", "--json", str(out))
    train(tmp_path / "run", "Plateau", *args)
    found = evaluations(tmp_path / "run")
    assert list(found) == [7, 14, 21, 28, 30]
    assert found[30] == metrics_of(tmp_path / "run" / "model.safetensors")
    summary = json.loads(out.read_text())
    assert summary["metrics"] == found[30]
    assert summary["validation"]["tasks"] == 5 * 25
    best = read_best(tmp_path / "run")
    assert best is not None
    assert (best.version, best.value) == min(((n, m["loss"]) for n, m in found.items()), key=lambda pair: pair[1])
    # The learning rate has followed the loss, in the run and in its replay.
    assert replayed(tmp_path / "run").verdict is Verdict.BIT_EQUAL


@slow
def test_metrics_and_bits_are_the_same_for_any_workers_policy_and_loaders(tmp_path: Path) -> None:
    args = ("--sums", "exact", "--eval-every", "10")
    train(tmp_path / "a", "Plateau", *args)
    train(tmp_path / "b", "Plateau", *args, "--policy", "uniform", "--loaders", "2")
    alone = ("--run-dir", str(tmp_path / "c"), "--workers", "1")
    done = paceline("run", "tests/jobs.py:Plateau", *alone, *NUMBERS, *args)
    assert done.returncode == 0, done.stderr
    assert evaluations(tmp_path / "a") == evaluations(tmp_path / "b") == evaluations(tmp_path / "c")
    models = {(tmp_path / name / "model.safetensors").read_bytes() for name in "abc"}
    assert len(models) == 1


@slow
def test_a_goal_ends_the_run_at_the_version_that_met_it(tmp_path: Path) -> None:
    train(tmp_path / "run", "Validated", "--sums", "exact", "--eval-every", "2", "--until", "accuracy>=0.4")
    found = evaluations(tmp_path / "run")
    last = max(found)
    assert last < 30
    assert found[last]["accuracy"] >= 0.4 > max(metrics["accuracy"] for n, metrics in found.items() if n < last)
    with LedgerReader(tmp_path / "run" / "ledger.sqlite") as ledger:
        assert ledger.rounds()[-1].round == last
    assert found[last] == metrics_of(tmp_path / "run" / "model.safetensors")


@slow
@pytest.mark.parametrize("policy", ["asgd", "greedy"])
def test_an_asynchronous_run_is_measured_by_its_server_and_any_other_by_workers(tmp_path: Path, policy: str) -> None:
    out = tmp_path / "out.json"
    train(tmp_path / "run", "Validated", "--policy", policy, "--eval-every", "10", "--json", str(out))
    summary = json.loads(out.read_text())
    assert summary["metrics"] == metrics_of(tmp_path / "run" / "model.safetensors")
    assert (summary["validation"]["tasks"] > 0) == (policy == "greedy")


@slow
def test_killed_workers_and_a_killed_server_cost_no_validation_task(tmp_path: Path) -> None:
    job, rounds = "tests/jobs.py:SlowlyValidated", "4"
    settings = ("--rounds", rounds, "--tasks", "4", "--micro-batch", "20", "--seed", "2", "--sums", "exact",
                "--eval-every", "2", "--min-workers", "2", "--checkpoint-every", "1")  # fmt: skip
    with cluster(tmp_path, job, *settings) as run:
        for name in ("a", "b", "c"):
            run.worker(name)

        def measuring(version: int) -> bool:
            situation = str(run.status().get("situation", ""))
            return situation.startswith(f"measuring version {version}") and " 0 of " not in situation

        until(lambda: measuring(2), f"a measurement\n{run.all_logs()}")
        run.processes["a"].kill()
        until(lambda: measuring(4), f"another one\n{run.all_logs()}")
        run.server.kill()
        run.server.wait(10)
        run.resume()
        run.end("server-2", "b", "c")
    found = evaluations(run.run_dir)
    assert list(found) == [2, 4]
    assert found[4] == metrics_of(run.run_dir / "model.safetensors", 20)
    done = paceline("replay", str(run.run_dir))
    assert f"bit-equal: {rounds} rounds" in done.stdout


def test_what_workers_are_not_asked_to_measure_between_rounds_no_learning_rate_can_follow() -> None:
    settings = RunSettings(job="tests/jobs.py:Plateau", policy="asgd", micro_batch=8)
    with pytest.raises(SettingsError, match="plateau_metric is 'loss', but workers do not measure it between rounds"):
        prepare(settings)
