from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
import structlog

from paceline.coordination.effects import Finish, Outcome, RefusalCode, Refuse, RefusePush, Warn, WorkerChanged
from paceline.coordination.events import Rejection
from paceline.coordination.ids import Incarnation, PushId, SessionId, TaskId, WorkerName
from paceline.log_format import FORMAT_VARIABLE, logs_json
from paceline.server.log import RunLog, configure_logging
from tests.server.records import lease_record, round_record, snapshot, worker_snapshot


@pytest.fixture(autouse=True)
def _unconfigured() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def tell_a_run() -> None:
    log = RunLog()
    log.observe(WorkerChanged(name=WorkerName("w1"), incarnation=Incarnation("i"), state="lost", reason="silent"))
    for number in range(1, 100):
        log.observe(lease_record(number, 0, "w1"))
        log.observe(round_record(number))
    log.observe(RefusePush(PushId(1), Rejection.NON_FINITE, "the sum is not finite"))
    log.observe(Refuse(SessionId(1), RefusalCode.NAME_IN_USE, "w1 is held by host pid 7"))
    log.observe(Warn("nobody is there"))
    log.observe(Finish(Outcome.FAILED, "task 7 failed everywhere", TaskId(7), "Traceback: user's own"))


def test_people_get_a_line_per_change_and_none_for_each_round(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(as_json=False)
    tell_a_run()
    out, err = capsys.readouterr()
    assert out == ""
    said = ["worker lost", "first round done", "non-finite", "held by host pid 7", "nobody is there", "run failed"]
    lines = err.splitlines()
    assert all(text in line for text, line in zip(said, lines, strict=False)), err
    assert len(lines) == 8
    assert lines[-1].startswith("Traceback: user's own")


def test_machines_get_json_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FORMAT_VARIABLE, "json")
    configure_logging()
    tell_a_run()
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert len(lines) == 7
    assert (lines[0]["event"], lines[0]["worker"], lines[0]["reason"]) == ("worker lost", "w1", "silent")
    assert [line["level"] for line in lines] == ["info", "info", "warning", "warning", "warning", "error", "error"]


@pytest.mark.parametrize(
    ("said", "terminal", "json_lines"),
    [("", True, False), ("", False, True), ("text", False, False), ("json", True, True), ("x", True, False)],
)
def test_lines_are_json_where_nobody_watches_unless_it_is_said(
    monkeypatch: pytest.MonkeyPatch, said: str, terminal: bool, json_lines: bool
) -> None:
    class Stream(io.StringIO):
        def isatty(self) -> bool:
            return terminal

    monkeypatch.setenv(FORMAT_VARIABLE, said)
    assert logs_json(Stream()) is json_lines


def test_a_long_round_is_told_of_while_it_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(as_json=True)
    now_s = 0.0
    log = RunLog(lambda: now_s)
    shown = snapshot(worker_snapshot("w1"))
    for second in range(120):
        now_s = float(second)
        log.say_how_far(replace(shown, state="training" if second < 60 else "waiting", round=7))
        if second == 30:
            log.observe(round_record(6))
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert {line["number"] for line in lines} == {6, 7}
    told = [line for line in lines if line["event"] == "in progress"]
    # Every four seconds of the first minute, but that of the round; once in the second.
    assert len(told) == 15


def test_every_few_seconds_a_line_says_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(as_json=True)
    now_s = 0.0
    log = RunLog(lambda: now_s)
    for number in range(1, 101):
        log.observe(round_record(number))
        now_s += 0.5
    # Slow rounds have a line each.
    for number in range(101, 104):
        now_s += 60.0
        log.observe(round_record(number))
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line.get("number") for line in lines] == [1, 11, 21, 31, 41, 51, 61, 71, 81, 91, 101, 102, 103]
    assert {"loss", "seconds"} <= set(lines[1])
