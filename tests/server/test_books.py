from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from paceline.coordination.effects import Outcome
from paceline.errors import UsageError
from paceline.server.books import Books
from paceline.server.ledger_reader import LedgerReader
from paceline.server.rundir import RunDir
from paceline.server.status import Situation
from paceline.server.summary import Ending
from paceline.server.traffic import Traffic
from paceline.settings import RunSettings
from tests.server.records import hello, lease_record, round_record, snapshot, worker_snapshot


def books_in(path: Path, metrics_port: int | None = None) -> Books:
    settings = RunSettings(job="digits.py:Digits", tasks=8, metrics_port=metrics_port)
    return Books(settings, RunDir.create(path, settings.job), Traffic(), lambda: snapshot(worker_snapshot("w1")))


def test_one_effect_reaches_every_book(tmp_path: Path) -> None:
    books = books_in(tmp_path)
    books.start('{"job": "Digits"}', "abcdef012345")
    books.hello(hello("w1"), 0.0)
    books.observe(lease_record(1, 0, "w1"), 1.0)
    books.observe(round_record(1), 1.0)
    assert books.status(Situation(rounds=5, elapsed_s=1.0, run_dir=str(tmp_path))).tasks_used == 6
    ending = Ending(outcome=Outcome.DONE, reason="", metrics={}, checkpoint=None, model=None, fingerprint="")
    assert books.summary(ending)["rounds"] == 1
    books.close()
    with LedgerReader(tmp_path / "ledger.sqlite") as reader:
        assert reader.task_ids_by_round() == {1: [0, 1, 2]}
        assert [worker.name for worker in reader.workers()] == ["w1"]
        assert json.loads(reader.meta()["settings"])["tasks"] == 8
    assert json.loads((tmp_path / "settings.json").read_text())["job_fingerprint"] == {"job": "Digits"}


async def test_a_taken_metrics_port_leaves_the_run_directory_free(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UsageError, match="--metrics-port"):
        books_in(tmp_path, taken.getsockname()[1]).start("{}", "")
    RunDir.create(tmp_path, "digits.py:Digits")


async def test_a_run_directory_taken_meanwhile_frees_the_metrics_port(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    late = books_in(tmp_path, port)
    first = books_in(tmp_path)
    first.start("{}", "")
    with pytest.raises(UsageError, match="holds a run already"):
        late.start("{}", "")
    first.close()
    socket.create_server(("127.0.0.1", port)).close()
