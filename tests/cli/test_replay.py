"""`paceline replay` in this process: what it prints, writes and exits with."""

from __future__ import annotations

import contextlib
import inspect
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from paceline.cli.app import _replay, run_command_line
from paceline.coordination.effects import Outcome
from tests.server.recorded import Planned, Share, record

ROUNDS = 4
# Sums of two numbers hardly depend on how they are rounded; those of five do.
MANY = [Planned((Share("w1", k, tuple(range(5 * k, 5 * k + 5))),)) for k in range(ROUNDS)]
PLAN = [Planned((Share("w1", max(0, k - 1), (2 * k,)), Share("w2", k, (2 * k + 1,)))) for k in range(ROUNDS)]


def recorded(tmp_path: Path, plan: list[Planned] = PLAN, **given: Any) -> Path:
    return record(tmp_path / "run", plan, **given).path


def replay(tmp_path: Path, *args: str) -> tuple[int, dict[str, Any]]:
    out = tmp_path / "out.json"
    code = run_command_line(["replay", str(tmp_path / "run"), *args, "--json", str(out)])
    return code, json.loads(out.read_text()) if out.exists() else {}


def change(path: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(path / "ledger.sqlite")) as connection, connection:
        connection.execute(statement)


def test_its_flags_are_these() -> None:
    assert list(inspect.signature(_replay).parameters) == ["run", "job", "data", "device", "json_file"]


def test_an_equal_run_exits_with_0_and_says_what_was_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded(tmp_path)
    code, document = replay(tmp_path)
    assert code == 0
    assert document.pop("seconds") > 0.0
    fingerprint = document["fingerprint"]
    counts = "4 rounds, 8 tasks, versions up to 1 behind"
    assert capsys.readouterr().out == f"paceline: bit-equal: {counts}; parameters have fingerprint {fingerprint}\n"
    assert document == {
        "verdict": "bit-equal",
        "rounds": 4,
        "tasks": 8,
        "committed_rounds": 4,
        "max_staleness": 1,
        "fingerprint": fingerprint,
        "difference": None,
        "tensors": {},
        "tolerance": None,
        "remarks": [],
        "policy": "uniform",
        "sums": "exact",
        "outcome": "done",
    }


def test_a_run_that_differs_exits_with_1_and_names_round_task_worker_version_and_both_values(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(recorded(tmp_path), "UPDATE leases SET loss_sums = '[2.5]' WHERE round = 3 AND worker = 'w1'")
    code, document = replay(tmp_path, "tests/jobs.py:DigitsLike")
    assert code == 1
    difference = document["difference"]
    replayed = difference["replayed"]
    what = f"loss sum of task 4 (w1, at version 1): 2.5 in the run, {replayed!r} in the replay"
    assert difference == {
        "round": 3,
        "what": what,
        "task": 4,
        "worker": "w1",
        "version": 1,
        "recorded": 2.5,
        "replayed": replayed,
    }
    assert (document["verdict"], document["rounds"], document["tensors"]) == ("differs", 2, None)
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"paceline: differs: round 3: {what}"
    assert second.startswith("paceline: bit-equal before it: 2 rounds, 4 tasks")


def test_fast_sums_that_are_close_exit_with_0_and_tell_the_largest_difference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded(tmp_path, MANY, sums="fast")  # but its sums are made in float64
    code, document = replay(tmp_path)
    assert (code, document["verdict"]) == (0, "close")
    largest = max(document["tensors"].values())
    assert 0.0 < largest < document["tolerance"] == 4e-5
    out = capsys.readouterr().out
    assert out.startswith(f"paceline: close: round {document['difference']['round']}: ")
    assert f"largest relative difference from the saved weights: {largest:.1e}" in out
    assert "up to 4.0e-05 counts as close with fast sums" in out


def test_a_run_without_an_end_is_replayed_as_far_as_it_got(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorded(tmp_path, outcome=None)
    code, document = replay(tmp_path)
    assert (code, document["outcome"], document["tensors"]) == (0, None, None)
    assert "replayed up to its last committed round" in capsys.readouterr().out
    assert "replayed up to its last committed round" in document["remarks"][0]


def test_a_failed_run_is_replayed_up_to_its_last_committed_round(tmp_path: Path) -> None:
    recorded(tmp_path, outcome=Outcome.FAILED)
    code, document = replay(tmp_path)
    assert (code, document["verdict"], document["outcome"]) == (0, "bit-equal", "failed")


@pytest.mark.parametrize(
    ("args", "code", "line"),
    [
        (["replay"], 2, "Missing argument"),
        (["replay", "nowhere"], 2, "run 'nowhere' has no settings.json"),
        (["replay", "RUN", "tests/jobs.py:Digitslike"], 2, "did you mean DigitsLike?"),
        (
            ["replay", "RUN", "tests/jobs.py:DigitsLikeFewer"],
            2,
            "is not the run's: the job is DigitsLike on the server",
        ),
        (["replay", "RUN", "--data", "nowhere"], 2, "data is 'nowhere'"),
        (["replay", "RUN", "--device", "gpu"], 78, "device is 'gpu'"),
        (["replay", "RUN", "--json", "nowhere/out.json"], 2, "the folder 'nowhere' does not exist"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], args: list[str], code: int, line: str
) -> None:
    path = recorded(tmp_path)
    assert run_command_line([str(path) if arg == "RUN" else arg for arg in args]) == code
    err = capsys.readouterr().err
    assert line in err
    assert err.count("\n") == 1
