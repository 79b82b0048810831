"""Runs that are gone on with: what was done stays done, and what cannot be is said in one line."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from paceline.coordination.policies import EMPLOYING, POLICY_NAMES, SINGLE_RESULT
from paceline.server.ledger_reader import LedgerReader
from tests.system.cluster import Cluster, assert_bit_equal, cluster, paceline, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]
slow = pytest.mark.slow

JOB = "tests/jobs.py:DigitsLike"
SETTINGS = ("--micro-batch", "8", "--seed", "5", "--sums", "exact", "--min-workers", "2")
OPTIONS = {
    "fixed": ("--means", "a=0.03,b=0.03"),
    "cmab-oracle": ("--means", "a=0.03,b=0.03", "--k-start", "2"),
    "cmab-kl": ("--k-start", "1", "--switch-at", "5"),
    "adaptive-k-sync": ("--k-burn-in", "3"),
    "malenia": ("--partition", "2"),
}


def settings_of(policy: str, rounds: int) -> tuple[str, ...]:
    tasks = "2" if policy in EMPLOYING else "4"
    return (*SETTINGS, "--policy", policy, "--tasks", tasks, "--rounds", str(rounds), *OPTIONS.get(policy, ()))


def saved(run: Cluster) -> int:
    return int(run.status().get("checkpoint", 0))


def start_workers(run: Cluster) -> None:
    for name in ("a", "b"):
        run.worker(name, "--delay", "const:0.03")


@slow
@pytest.mark.parametrize("policy", POLICY_NAMES)
def test_killed_resumed_and_replayed_is_the_same_under_every_policy(tmp_path: Path, policy: str) -> None:
    rounds = 120 if policy in SINGLE_RESULT else 40
    with cluster(tmp_path, JOB, *settings_of(policy, rounds), "--checkpoint-every", "4") as run:
        start_workers(run)
        until(lambda: saved(run) >= 8, f"a checkpoint\n{run.all_logs()}")
        run.server.kill()
        run.server.wait(10)
        run.resume()
        run.end("server-2", "a", "b")
    with LedgerReader(run.run_dir / "ledger.sqlite") as ledger:
        assert [record.round for record in ledger.rounds()] == list(range(1, rounds + 1))
        first, second = ledger.lives()
        assert (first.resumed_from, second.life) == (None, 2)
        assert second.resumed_from is not None
        assert second.resumed_from >= 8
    done = paceline("replay", str(run.run_dir))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"bit-equal: {rounds} rounds" in done.stdout
    assert f"was resumed after round {second.resumed_from}" in done.stdout


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the directory of a run of 30 rounds that was stopped by SIGTERM at 8 or so; not to be changed."""
    folder = tmp_path_factory.mktemp("stopped")
    with cluster(folder, JOB, *settings_of("uniform", 30), "--checkpoint-every", "3") as run:
        start_workers(run)
        until(lambda: saved(run) >= 6, f"checkpoints\n{run.all_logs()}")
        run.server.send_signal(signal.SIGTERM)
        run.end("server")
        # Who was told that the run was stopped may be started again by a supervisor.
        run.end("a", "b", code=75)
    return run.run_dir


@pytest.fixture
def copy(stopped: Path, tmp_path: Path) -> Path:
    """Give a copy of it."""
    shutil.copytree(stopped, tmp_path / "run")
    return tmp_path / "run"


def versions(path: Path) -> list[int]:
    return sorted(int(entry.name) for entry in (path / "checkpoints").iterdir())


def test_sigterm_lets_the_round_close_and_saves_it(stopped: Path) -> None:
    with LedgerReader(stopped / "ledger.sqlite") as ledger:
        rounds = [record.round for record in ledger.rounds()]
        assert ledger.outcome() is not None
    assert versions(stopped)[-1] == rounds[-1]
    assert len(versions(stopped)) == 2


def run_on(path: Path, *args: str) -> tuple[int, str, dict[str, Any]]:
    """Go on with a run on this machine; give exit code, what was said, and the summary."""
    out = path.parent / "out.json"
    done = paceline("run", "--resume", str(path), "--json", str(out), *args)
    return done.returncode, done.stdout + done.stderr, json.loads(out.read_text()) if out.exists() else {}


@pytest.mark.slow
def test_run_resumed_elsewhere_ends_with_the_bits_of_one_never_stopped(copy: Path, tmp_path: Path) -> None:
    code, said, summary = run_on(copy)
    assert code == 0, said
    settings = [word for word in settings_of("uniform", 30) if word not in ("--min-workers", "2")]
    whole = paceline("run", JOB, *settings, "--run-dir", str(tmp_path / "whole"), "--json", str(tmp_path / "w.json"))
    assert whole.returncode == 0, whole.stderr
    other = json.loads((tmp_path / "w.json").read_text())
    assert summary["fingerprint"] == other["fingerprint"]
    assert summary["loss"] == other["loss"]
    assert (summary["rounds"], summary["tasks"]["used"]) == (30, 120)
    document = json.loads((copy / "settings.json").read_text())
    assert [entry["life"] for entry in document["resumed"]] == [2]


@slow
def test_run_that_is_done_says_so_and_goes_on_with_more_rounds(copy: Path) -> None:
    code, said, _ = run_on(copy)
    assert code == 0, said
    before = {entry.name: entry.stat().st_mtime_ns for entry in copy.iterdir()}
    code, said, _ = run_on(copy)
    assert (code, f"run {str(copy)!r} is done" in said, said.count("\n")) == (0, True, 1), said
    assert {entry.name: entry.stat().st_mtime_ns for entry in copy.iterdir()} == before
    code, said, summary = run_on(copy, "--rounds", "33")
    assert (code, summary["rounds"]) == (0, 33), said


def test_settings_that_would_make_another_run_of_it_are_named(copy: Path) -> None:
    before = (copy / "settings.json").read_bytes()
    done = paceline("server", JOB, "--resume", str(copy), "--tasks", "8", "--seed", "6", "--bind", "127.0.0.1:0")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert "seed is 6 (the run's: 5)" in done.stderr
    assert "tasks is 8 (the run's: 4)" in done.stderr
    assert (copy / "settings.json").read_bytes() == before


def test_another_job_is_refused_with_what_differs(copy: Path) -> None:
    done = paceline("server", "tests/jobs.py:DigitsLikeFewer", "--resume", str(copy), "--bind", "127.0.0.1:0")
    assert done.returncode == 2
    assert "is not that of run" in done.stderr
    assert "600 samples" in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize("command", ["run", "server"])
def test_directory_without_a_run_is_refused(tmp_path: Path, command: str) -> None:
    done = paceline(command, "--resume", str(tmp_path / "nothing"))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "has no settings.json: expected the directory of a run" in done.stderr


@slow
def test_supervisor_that_always_says_the_same_begins_and_goes_on(tmp_path: Path) -> None:
    same = (*settings_of("uniform", 12), "--resume", str(tmp_path / "run"), "--checkpoint-every", "4")
    with cluster(tmp_path, JOB, *same) as run:
        start_workers(run)
        until(lambda: saved(run) >= 4, f"a checkpoint\n{run.all_logs()}")
        run.server.kill()
        run.server.wait(10)
        run.start_again(JOB, *same)
        run.end("server-2", "a", "b")
        assert "goes on from the checkpoint of round" in run.log("server-2")


def test_run_that_another_server_has_is_refused(tmp_path: Path) -> None:
    with cluster(tmp_path, JOB, *settings_of("uniform", 10000)) as run:
        until(run.status, "a server that answers")
        done = paceline("server", "--resume", str(run.run_dir), "--bind", "127.0.0.1:0")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert "is in use by another server" in done.stderr
        assert run.server.poll() is None


@slow
def test_run_without_a_checkpoint_begins_again_and_says_so(tmp_path: Path) -> None:
    with cluster(tmp_path, JOB, *settings_of("uniform", 20), "--checkpoint-every", "1h") as run:
        start_workers(run)
        run.at_round(5)
        run.server.kill()
        run.server.wait(10)
        run.resume()
        run.end("server-2", "a", "b")
        assert "no checkpoint yet: the run begins again at round 0" in run.log("server-2")
    assert paceline("replay", str(run.run_dir)).returncode == 0
    with LedgerReader(run.run_dir / "ledger.sqlite") as ledger:
        assert [record.round for record in ledger.rounds()] == list(range(1, 21))


@slow
@pytest.mark.parametrize("name", ["model.safetensors", "state.safetensors", "checkpoint.json"])
def test_damaged_checkpoint_gives_way_to_the_one_before(copy: Path, name: str) -> None:
    older, newer = versions(copy)
    damaged = copy / "checkpoints" / f"{newer:08d}" / name
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    with cluster(copy.parent, JOB, resumed=True) as run:
        start_workers(run)
        run.end("server-2", "a", "b")
        log = run.log("server-2")
    assert f"checkpoint of round {newer} is passed over" in log
    assert name in log
    assert f"goes on from the checkpoint of round {older}" in log
    assert paceline("replay", str(copy)).returncode == 0


@slow
def test_ledger_that_lacks_rounds_is_not_gone_on_from_behind_them(copy: Path) -> None:
    older, newer = versions(copy)
    with sqlite3.connect(copy / "ledger.sqlite") as connection:
        connection.execute("DELETE FROM rounds WHERE round = ?", (newer,))
    connection.close()
    with cluster(copy.parent, JOB, resumed=True) as run:
        start_workers(run)
        run.end("server-2", "a", "b")
        assert f"goes on from the checkpoint of round {older}" in run.log("server-2")
    assert paceline("replay", str(copy)).returncode == 0


def test_run_whose_ledger_is_lost_keeps_its_checkpoints_and_is_refused(copy: Path) -> None:
    (copy / "ledger.sqlite").unlink()
    before = versions(copy)
    for command in ("run", "server"):
        done = paceline(command, "--resume", str(copy))
        assert (done.returncode, done.stderr.count("\n")) == (74, 1), done.stderr
        assert "ledger.sqlite is missing" in done.stderr
        assert "paceline checkpoint export" in done.stderr
    assert versions(copy) == before


def test_run_whose_checkpoints_are_all_damaged_is_refused(copy: Path) -> None:
    for version in versions(copy):
        (copy / "checkpoints" / f"{version:08d}" / "state.safetensors").write_bytes(b"")
    done = paceline("run", "--resume", str(copy))
    assert (done.returncode, done.stderr.count("\n")) == (74, 1), done.stderr
    assert "none can be gone on from" in done.stderr
    assert len(versions(copy)) == 2


def test_another_optimizer_than_the_checkpoints_is_refused(copy: Path) -> None:
    job = copy.parent / "job.py"
    job.write_text(
        "import torch\nfrom tests.jobs import DigitsLike as Before\n\n\nclass DigitsLike(Before):\n"
        "    def optimizer(self, model):\n        return torch.optim.Adam(model.parameters())\n"
    )
    done = paceline("server", f"{job}:DigitsLike", "--resume", str(copy), "--bind", "127.0.0.1:0")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "the state is of SGD without a scheduler: the job has Adam without a scheduler now" in done.stderr


def test_optimizer_whose_state_cannot_be_saved_is_refused_at_the_start(tmp_path: Path) -> None:
    done = paceline("server", "tests/jobs.py:OddState", "--run-dir", str(tmp_path / "run"), "--bind", "127.0.0.1:0")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "state of the optimizer: state.0.note is a " in done.stderr
    assert "Note: expected tensors, numbers, strings, lists, tuples and dicts" in done.stderr
    assert not (tmp_path / "run").exists()


@slow
def test_what_the_job_itself_keeps_goes_on(tmp_path: Path) -> None:
    args = (*SETTINGS, "--policy", "uniform", "--tasks", "4", "--rounds", "16", "--checkpoint-every", "4")
    with cluster(tmp_path, "tests/jobs.py:Averaging", *args) as run:
        start_workers(run)
        until(lambda: saved(run) >= 8, f"a checkpoint\n{run.all_logs()}")
        run.server.kill()
        run.server.wait(10)
        run.resume()
        run.end("server-2", "a", "b")
    (tmp_path / "whole").mkdir()
    with cluster(tmp_path / "whole", "tests/jobs.py:Averaging", *args) as whole:
        start_workers(whole)
        whole.end()
    assert_bit_equal(run.model(), whole.model())


def test_server_without_workers_ends_by_itself_and_can_be_resumed(tmp_path: Path) -> None:
    with cluster(tmp_path, JOB, *settings_of("uniform", 10), "--idle-exit", "2s") as run:
        run.end("server", code=75)
        assert "no worker was there for 2 s" in run.log("server")
    done = paceline("checkpoint", "ls", str(run.run_dir))
    assert done.returncode == 0, done.stderr


@slow
def test_best_version_is_kept_across_lives(copy: Path) -> None:
    code, said, _ = run_on(copy, "--best", "accuracy", "--eval-every", "1")
    assert code == 0, said
    best = json.loads((copy / "best.json").read_text())["content"]
    assert best["metric"] == "accuracy"
    assert (copy / "best.safetensors").stat().st_size == best["bytes"]
    done = paceline("checkpoint", "export", str(copy), "--best", "--out", str(copy / "out.safetensors"))
    assert done.returncode == 0, done.stderr
    assert best["fingerprint"] in done.stdout


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--checkpoint-every", "0"), "checkpoint-every is '0': expected rounds (20), a span of time (60s, 10m) or"),
        (("--checkpoint-every", "soon"), "checkpoint-every is 'soon'"),
        (("--keep-checkpoints", "0"), "keep-checkpoints"),
        (("--best", "accuracy:most"), "best is 'accuracy:most': expected METRIC, METRIC:max or METRIC:min"),
        (("--grace", "-3s"), "grace is '-3s': expected a span of time"),
        (("--idle-exit", "often"), "idle-exit is 'often': expected a span of time"),
        (("--idle-exit", "0s"), "idle-exit"),
    ],
)
def test_settings_that_are_none_are_named(tmp_path: Path, args: tuple[str, ...], said: str) -> None:
    done = paceline("server", JOB, "--run-dir", str(tmp_path / "run"), *args)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert said in done.stderr
    assert not (tmp_path / "run").exists()
