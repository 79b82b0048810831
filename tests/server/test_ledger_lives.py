"""The ledger across lives of the server: rows that are void and stay, barriers, and disks without room."""

from __future__ import annotations

import dataclasses
import resource
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

import paceline.server.ledger as ledger_module
from paceline.coordination.effects import Finish, Outcome, Warn
from paceline.coordination.ids import LeaseId
from paceline.errors import RunFailedError
from paceline.server.ledger import Ledger
from paceline.server.ledger_reader import LedgerReader
from tests.server.records import hello, lease_record, round_record

LIMIT_S = 20.0


def write_rounds(ledger: Ledger, first: int, last: int, life: int = 1) -> None:
    for number in range(first, last + 1):
        lease = lease_record(number, 0, "w1")
        ledger.observe(dataclasses.replace(lease, lease=LeaseId(life * 1000 + number)), float(number))
        ledger.observe(round_record(number, ("w1",)), float(number))


def reach(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def two_lives(path: Path) -> None:
    """Write five rounds, of which three stand, and in a second life two others, and the end."""
    first = Ledger(path, '{"tasks": 8}')
    first.start()
    first.hello(hello("w1"), 0.0)
    write_rounds(first, 1, 5)
    first.observe(dataclasses.replace(lease_record(6, 0, "w1"), lease=LeaseId(999)), 6.0)
    first.observe(Finish(Outcome.STOPPED, "SIGTERM"), 6.0)
    first.close()
    second = Ledger(path, '{"tasks": 8, "rounds": 9}', life=2, resumed_from=3)
    second.start()
    second.hello(hello("w1"), 0.0)
    write_rounds(second, 4, 5, life=2)
    second.close()


def test_rows_after_the_checkpoint_are_void_and_stay(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    two_lives(path)
    with LedgerReader(path) as reader:
        assert [record.round for record in reader.rounds()] == [1, 2, 3, 4, 5]
        assert [lease.lease for lease in reader.leases()] == [1001, 1002, 1003, 2004, 2005]
        assert [lease.lease for _, leases in reader.rounds_with_leases() for lease in leases] == [
            lease.lease for lease in reader.leases()
        ]
        assert reader.totals()[0] == 5
        assert list(reader.task_ids_by_round()) == [1, 2, 3, 4, 5]
        assert [(life.life, life.resumed_from, life.settings) for life in reader.lives()] == [
            (1, None, '{"tasks": 8}'),
            (2, 3, '{"tasks": 8, "rounds": 9}'),
        ]
        assert reader.meta()["life"] == "2"
        # One incarnation may live through both.
        assert [(worker.life, worker.name) for worker in reader.workers()] == [(1, "w1"), (2, "w1")]
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT round, void FROM rounds WHERE life = 1 ORDER BY place").fetchall() == [
            (1, None), (2, None), (3, None), (4, 2), (5, 2),
        ]  # fmt: skip
        assert connection.execute("SELECT lease FROM leases WHERE void = 2 ORDER BY place").fetchall() == [
            (1004,), (1005,), (999,),
        ]  # fmt: skip


def test_outcome_is_that_of_the_last_life(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    two_lives(path)
    with LedgerReader(path) as reader:
        assert reader.outcome() is None
    third = Ledger(path, "{}", life=3, resumed_from=5)
    third.start()
    third.observe(Finish(Outcome.DONE, "9 rounds are done"), 1.0)
    third.observe(Warn("done"), 1.0)
    third.close()
    with LedgerReader(path) as reader:
        assert reader.outcome() is Outcome.DONE


def test_complete_up_to_a_round_counts_what_stands(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    two_lives(path)
    with LedgerReader(path) as reader:
        assert [reader.complete_to(number) for number in (0, 3, 5, 6)] == [True, True, True, False]
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM rounds WHERE round = 2 AND void IS NULL")
    with LedgerReader(path) as reader:
        assert [reader.complete_to(number) for number in (1, 2, 5)] == [True, False, False]


def test_a_round_cannot_stand_twice(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    two_lives(path)
    with closing(sqlite3.connect(path)) as connection, pytest.raises(sqlite3.IntegrityError):
        connection.execute("UPDATE rounds SET void = NULL WHERE round = 4")


def test_a_ledger_that_is_not_there_is_not_gone_on_with(tmp_path: Path) -> None:
    with pytest.raises(RunFailedError, match=r"ledger\.sqlite' could not be written: it does not exist"):
        Ledger(tmp_path / "ledger.sqlite", "{}", life=2, resumed_from=3).start()
    assert list(tmp_path.iterdir()) == []


def test_a_barrier_returns_when_all_before_it_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger = Ledger(path, "{}")
    ledger.start()
    for number in range(1, 20):
        write_rounds(ledger, number, number)
        assert ledger.barrier(LIMIT_S)
        with LedgerReader(path) as reader:
            assert reader.complete_to(number)
    ledger.close()


def test_barriers_of_several_threads_all_return(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite", "{}")
    ledger.start()
    found: list[bool] = []
    threads = [threading.Thread(target=lambda: found.append(ledger.barrier(LIMIT_S))) for _ in range(8)]
    for number, thread in enumerate(threads, start=1):
        write_rounds(ledger, number, number)
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    ledger.close()
    assert found == [True] * 8


@contextmanager
def no_room(path: Path) -> Iterator[None]:
    """Let no file of this process grow beyond what the ledger's files have now."""
    size = max(entry.stat().st_size for entry in path.parent.iterdir()) + 4096
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_rows_wait_while_there_is_no_room_and_none_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "AGAIN_S", 0.05)
    path = tmp_path / "ledger.sqlite"
    ledger = Ledger(path, "{}")
    ledger.start()
    write_rounds(ledger, 1, 5)
    assert ledger.barrier(LIMIT_S)
    with no_room(path):
        write_rounds(ledger, 6, 200)
        reach(lambda: bool(ledger.trouble), "the ledger did not notice")
        assert not ledger.barrier(0.3)
        write_rounds(ledger, 201, 205)
        assert ledger.waiting > 0
        with LedgerReader(path) as reader:
            assert reader.complete_to(5)
    reach(lambda: not ledger.waiting and not ledger.trouble, "the ledger did not catch up")
    assert ledger.barrier(LIMIT_S)
    ledger.close()
    with LedgerReader(path) as reader:
        assert [record.round for record in reader.rounds()] == list(range(1, 206))
        assert len(reader.leases()) == 205
    said = capsys.readouterr()
    text = said.out + said.err
    assert (text.count("ledger-waits"), text.count("ledger-caught-up")) == (1, 1)


def test_a_run_that_ends_without_room_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "AGAIN_S", 0.05)
    monkeypatch.setattr(ledger_module, "CLOSE_LIMIT_S", 0.3)
    path = tmp_path / "ledger.sqlite"
    ledger = Ledger(path, "{}")
    ledger.start()
    write_rounds(ledger, 1, 5)
    assert ledger.barrier(LIMIT_S)
    with no_room(path):
        write_rounds(ledger, 6, 200)
        with pytest.raises(RunFailedError, match=r"ledger\.sqlite' could not be written"):
            ledger.close()
    with LedgerReader(path) as reader:
        assert reader.complete_to(5)


def test_more_rows_than_memory_allows_end_the_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "AGAIN_S", 0.05)
    monkeypatch.setattr(ledger_module, "WAITING_ROWS", 100)
    path = tmp_path / "ledger.sqlite"
    ledger = Ledger(path, "{}")
    ledger.start()
    assert ledger.barrier(LIMIT_S)
    with no_room(path):
        write_rounds(ledger, 1, 200)
        reach(lambda: not ledger.waiting, "the ledger waits for ever")
        assert not ledger.barrier(0.1)
        with pytest.raises(RunFailedError, match="more than 100 rows wait"):
            ledger.close()
