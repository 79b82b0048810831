"""Callbacks hear every event in order, in a thread of their own; one that raises is reported and called no more."""

from __future__ import annotations

import json
import math
import threading

import pytest

from paceline import callbacks
from paceline.callbacks import (
    Callback,
    EndEvent,
    EvaluationEvent,
    Event,
    Listeners,
    RoundEvent,
    StartEvent,
    WorkerEvent,
    WorkerShare,
    from_document,
    to_document,
)
from paceline.errors import UsageError

SHARE = WorkerShare(planned=3, used=2, wasted=1, used_s=0.2, wasted_s=0.1, idle_s=0.05)
EVENTS: list[Event] = [
    StartEvent(run_dir="runs/a", address="127.0.0.1:7070", round=0, settings={"tasks": 4}),
    WorkerEvent("w1", "ready", "cpu"),
    RoundEvent(
        round=1, loss=0.5, seconds=0.3, at_s=1.0, tasks=2, samples=64, reason="learned", workers={"w1": SHARE}
    ),
    EvaluationEvent(1, {"accuracy": 0.9}),
    EndEvent(outcome="done", reason="1 rounds are done", run_dir="runs/a", summary={"rounds": 1}),
]  # fmt: skip


class Kept(Callback):
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.threads: set[int] = set()

    def _keep(self, event: Event) -> None:
        self.events.append(event)
        self.threads.add(threading.get_ident())

    on_start = on_round = on_evaluation = on_worker = on_end = _keep


class Raises(Callback):
    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.calls = 0

    def on_evaluation(self, event: EvaluationEvent) -> None:
        self.calls += 1
        raise self.error


def test_every_event_is_heard_once_in_order_in_one_thread() -> None:
    kept = Kept()
    listeners = Listeners([kept], lambda line, trace: None)
    for event in EVENTS:
        listeners.post(event)
    listeners.close()
    assert kept.events == EVENTS
    assert len(kept.threads) == 1
    assert threading.get_ident() not in kept.threads


@pytest.mark.parametrize("error", [ValueError("no\nmore"), SystemExit(3)])
def test_one_that_raises_is_reported_and_called_no_more(error: BaseException) -> None:
    said: list[tuple[str, str]] = []
    raises, kept = Raises(error), Kept()
    listeners = Listeners([raises, kept], lambda line, trace: said.append((line, trace)))
    for event in [*EVENTS[:4], *EVENTS[3:]]:
        listeners.post(event)
    listeners.close()
    assert raises.calls == 1
    assert len(kept.events) == 6
    ((line, trace),) = said
    assert line.startswith(f"callback Raises.on_evaluation raised {type(error).__name__}: ")
    assert line.endswith(": it is called no more")
    assert "raise self.error" in trace


def test_one_that_hangs_holds_nobody_up_and_is_told_of() -> None:
    class Hangs(Callback):
        go_on = threading.Event()

        def on_start(self, event: StartEvent) -> None:
            self.go_on.wait(60)

    said: list[str] = []
    listeners = Listeners([Hangs()], lambda line, trace: said.append(line))
    for event in EVENTS:
        listeners.post(event)
    listeners.close(timeout_s=0.05)
    listeners.close(timeout_s=0.05)
    Hangs.go_on.set()
    (line,) = said
    assert line.startswith("callbacks have not heard 5 events")


def test_rounds_that_a_slow_one_cannot_take_are_left_out_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callbacks, "WAITING_EVENTS", 3)

    class Slow(Kept):
        begun, go_on = threading.Event(), threading.Event()

        def on_start(self, event: Event) -> None:
            self.begun.set()
            assert self.go_on.wait(60)

    said: list[str] = []
    slow = Slow()
    listeners = Listeners([slow], lambda line, trace: said.append(line))
    listeners.post(EVENTS[0])
    assert slow.begun.wait(60)
    for event in [EVENTS[2]] * 5 + EVENTS[3:]:
        listeners.post(event)
    slow.go_on.set()
    listeners.close()
    # An evaluation and the end are heard all the same.
    assert slow.events == [EVENTS[2]] * 3 + EVENTS[3:]
    assert said == ["callbacks were slower than the rounds: 2 rounds were left out"]


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_comes_back_from_json(event: Event) -> None:
    assert from_document(json.loads(json.dumps(to_document(event)))) == event


def test_a_metric_that_is_no_number_comes_back_as_none_too() -> None:
    event = from_document(json.loads(json.dumps(to_document(EvaluationEvent(3, {"gain": math.nan})))))
    assert isinstance(event, EvaluationEvent)
    assert math.isnan(event.metrics["gain"])


@pytest.mark.parametrize(
    ("callback", "words"),
    [(3, "callback is 3: expected an object of a class derived from"), (Kept, "callback is the class Kept: expected")],
)
def test_what_is_no_callback_is_refused(callback: object, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Listeners([callback], lambda line, trace: None)
