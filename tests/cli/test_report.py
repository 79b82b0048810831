"""`paceline report`: what it prints and writes of past runs, and what it says of folders that are none."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from paceline.cli.app import run_command_line
from paceline.coordination.effects import Outcome
from paceline.errors import UsageError
from tests.server.recorded import Planned, Share, record

PLAN = [Planned((Share("w1", max(0, k - 1), (2 * k,)), Share("w2", k, (2 * k + 1,)))) for k in range(4)]


def recorded(path: Path, **given: Any) -> Path:
    return record(path, PLAN, **given).path


def test_a_run_is_told_as_a_table_and_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = recorded(tmp_path / "run"), tmp_path / "out.json"
    assert run_command_line(["report", str(run), "--json", str(out)]) == 0
    printed = capsys.readouterr().out
    (document,) = json.loads(out.read_text())["runs"]
    assert document["now"]["version"] == 4
    assert document["now"]["state"] == "done"
    assert document["curve"]["round"] == [1, 2, 3, 4]
    assert [worker["name"] for worker in document["workers"]] == ["w1", "w2"]
    assert f"{document['now']['loss']:.4g}" in printed
    assert str(run) in printed


def test_several_runs_are_one_file_that_needs_no_other(tmp_path: Path) -> None:
    runs = [recorded(tmp_path / name) for name in ("a", "b")]
    out = tmp_path / "out.html"
    assert run_command_line(["report", *map(str, runs), "--html", str(out)]) == 0
    text = out.read_text()
    assert not re.search(r'(src|href)="(?!data:)', text)
    (held,) = re.findall(r'<script type="application/json" id="documents">(.*?)</script>', text)
    assert [document["run"]["dir"] for document in json.loads(held)] == [str(run) for run in runs]


def test_a_name_cannot_break_out_of_the_page(tmp_path: Path) -> None:
    run = recorded(tmp_path / "<script>alert(1)" / "x")
    out = tmp_path / "out.html"
    assert run_command_line(["report", str(run), "--html", str(out)]) == 0
    assert "<script>alert(1)" not in out.read_text()


def test_a_run_whose_server_was_killed_is_told_as_far_as_it_is(tmp_path: Path) -> None:
    run, out = recorded(tmp_path / "run"), tmp_path / "out.json"
    with contextlib.closing(sqlite3.connect(run / "ledger.sqlite")) as connection, connection:
        connection.execute(f"DELETE FROM events WHERE kind = '{Outcome.DONE.value}'")
    assert run_command_line(["report", str(run), "--json", str(out)]) == 0
    now = json.loads(out.read_text())["runs"][0]["now"]
    assert (now["state"], now["version"]) == ("open", 4)


def test_what_is_no_run_is_named_and_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, out = recorded(tmp_path / "run"), tmp_path / "out.html"
    code = run_command_line(["report", str(good), str(tmp_path / "none"), "--html", str(out)])
    assert code == UsageError.exit_code
    assert f"run {str(tmp_path / 'none')!r} has no settings.json" in capsys.readouterr().err
    assert not out.exists()


def test_a_damaged_ledger_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = recorded(tmp_path / "run")
    with contextlib.closing(sqlite3.connect(run / "ledger.sqlite")) as connection, connection:
        connection.execute("UPDATE rounds SET workers = '{' WHERE round = 2")
    assert run_command_line(["report", str(run)]) == UsageError.exit_code
    assert "ledger of run" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--html", "--json"])
def test_a_file_that_cannot_be_written_is_named_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    code = run_command_line(["report", str(tmp_path / "none"), flag, str(tmp_path / "no" / "file")])
    assert code == UsageError.exit_code
    assert f"{flag} is" in capsys.readouterr().err
