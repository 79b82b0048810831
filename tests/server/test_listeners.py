"""Callbacks on the server: told in order, in a thread of their own, and no trouble of theirs is the run's."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from paceline.callbacks import Callback, EndEvent, EvaluationEvent, RoundEvent, RunInfo, from_document, to_document
from paceline.errors import JobImportError, UsageError
from paceline.loading import load_callback
from paceline.server import listeners as module
from paceline.server.listeners import Listeners
from tests.server.records import round_record

INFO = RunInfo(Path("runs/a"), "job.py:Job", {"tasks": 4})


class Hears(Callback):
    def __init__(self) -> None:
        self.rounds: list[int] = []
        self.threads: set[str] = set()
        self.ended = False
        self.go = threading.Event()
        self.go.set()

    def on_round(self, event: RoundEvent) -> None:
        self.go.wait()
        self.rounds.append(event.round)
        self.threads.add(threading.current_thread().name)

    def on_end(self, event: EndEvent) -> None:
        self.ended = True


class Exits(Hears):
    def on_round(self, event: RoundEvent) -> None:
        raise SystemExit(3)


def told(*callbacks: Callback, rounds: int = 5) -> Listeners:
    listeners = Listeners(callbacks)
    listeners.start(INFO)
    for number in range(1, rounds + 1):
        listeners.observe(round_record(number), float(number))
    return listeners


def test_all_is_told_in_order_in_a_thread_of_its_own() -> None:
    hears = Hears()
    listeners = told(hears)
    listeners.end("done", "5 rounds are done", {})
    listeners.close()
    assert (hears.rounds, hears.threads, hears.ended) == ([1, 2, 3, 4, 5], {"callbacks"}, True)


def test_one_that_exits_is_switched_off_and_the_others_hear_on(capsys: pytest.CaptureFixture[str]) -> None:
    exits, hears = Exits(), Hears()
    listeners = told(exits, hears)
    listeners.end("done", "", {})
    listeners.close()
    assert (hears.rounds, exits.ended) == ([1, 2, 3, 4, 5], False)
    assert "callback Exits raised SystemExit" in "".join(capsys.readouterr())


def test_rounds_that_a_slow_one_does_not_keep_up_with_are_left_out_and_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "WAITING_ROUNDS", 10)
    slow = Hears()
    slow.go.clear()
    listeners = told(slow, rounds=100)
    slow.go.set()
    listeners.end("done", "", {})
    listeners.close()
    assert slow.ended
    assert slow.rounds[-10:] == list(range(91, 101))
    assert len(slow.rounds) <= 11
    assert f"{100 - len(slow.rounds)} rounds were not told them" in "".join(capsys.readouterr())


def test_one_that_does_not_end_is_not_waited_for_for_ever(capsys: pytest.CaptureFixture[str]) -> None:
    stuck = Hears()
    stuck.go.clear()
    listeners = told(stuck)
    listeners.close(0.05)
    stuck.go.set()
    assert "callbacks did not finish within 0.05 s" in "".join(capsys.readouterr())


def test_events_travel_as_documents() -> None:
    heard: list[object] = []

    class Keeps(Callback):
        def on_round(self, event: RoundEvent) -> None:
            heard.append(event)

    listeners = told(Keeps(), rounds=1)
    listeners.close()
    for event in (INFO, heard[0], EvaluationEvent(3, {"accuracy": 0.5}, 1.0)):
        assert isinstance(event, RunInfo | RoundEvent | EvaluationEvent)
        assert from_document(to_document(event)) == event


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("callback.py", "does not name a class"),
        ("none.py:Callback", "'none.py' does not exist"),
        ("tests/jobs.py:Tiny", "is no Callback: expected a subclass of paceline.callbacks.Callback"),
        ("tests/jobs.py:Nothing", "is no Callback"),
    ],
)
def test_a_callback_that_cannot_be_had_is_told_of(spec: str, told: str) -> None:
    with pytest.raises((UsageError, JobImportError), match=told):
        load_callback(spec)
