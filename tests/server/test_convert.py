"""What the server writes is what it meant, and what it reads is what was said."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.coordination import effects, events
from paceline.coordination.events import Rejection, TaskFailure, TaskResult
from paceline.coordination.ids import Incarnation, LeaseId, PushId, SessionId, TaskId, WorkerName
from paceline.errors import ProtocolError
from paceline.layout import ContributionLayout, Rule, Segment
from paceline.protos import coordinator_pb2 as pb
from paceline.server import convert
from tests.server.raw_worker import task_ids

LIFE_2 = 2 << 40
numbers = st.floats(allow_nan=False, allow_infinity=False)
ids = st.integers(0, 2**63 - 1)


def wire(message: pb.ServerMessage) -> pb.ServerMessage:
    """Send a message through its bytes."""
    return pb.ServerMessage.FromString(message.SerializeToString())


@given(st.lists(st.integers(0, 40)))
def test_task_ids_come_back_in_their_order(tasks: list[int]) -> None:
    ranges = convert.ranges(TaskId(task) for task in tasks)
    assert task_ids(ranges) == tasks
    joints = sum(1 for a, b in itertools.pairwise(tasks) if b == a + 1)
    assert len(ranges) == len(tasks) - joints


@pytest.mark.parametrize("limit_s", [None, 2.5])
def test_a_lease_says_all_that_it_is(limit_s: float | None) -> None:
    effect = effects.SendLease(
        session=SessionId(1),
        lease=LeaseId(LIFE_2),
        version=7,
        tasks=(TaskId(3), TaskId(4), TaskId(9)),
        keep_in_advance=True,
        push_unasked=False,
        task_limit_s=limit_s,
    )
    lease = wire(convert.lease(effect, 2.0**16, b"state", 5)).lease
    assert (lease.lease, lease.version, task_ids(lease.tasks)) == (LIFE_2, 7, [3, 4, 9])
    assert (lease.keep_in_advance, lease.push_unasked, lease.task_limit_s) == (True, False, limit_s or 0.0)
    assert (lease.state, lease.state_crc32c, lease.loss_scale) == (b"state", 5, 65536.0)


def test_other_orders_say_all_that_they_are() -> None:
    session, lease, tasks = SessionId(1), LeaseId(LIFE_2), (TaskId(8), TaskId(9))
    grant = wire(convert.grant(effects.SendGrant(session, lease, tasks))).grant
    assert (grant.lease, task_ids(grant.tasks)) == (LIFE_2, [8, 9])
    for keep in (True, False):
        verdict = wire(convert.verdict(effects.SendVerdict(session, lease, TaskId(8), keep))).verdict
        assert (verdict.lease, verdict.task, verdict.keep) == (LIFE_2, 8, keep)
    collect = wire(convert.collect(effects.SendCollect(session, lease, tasks))).collect
    assert (collect.lease, task_ids(collect.kept)) == (LIFE_2, [8, 9])
    assert wire(convert.cancel(effects.SendCancel(session, lease))).cancel.lease == LIFE_2


@pytest.mark.parametrize("code", effects.RefusalCode)
def test_every_refusal_has_a_code_of_its_own(code: effects.RefusalCode) -> None:
    refused = wire(convert.refused(effects.Refuse(SessionId(1), code, "why"))).refused
    assert pb.RefusalCode.Name(refused.code) == f"REFUSAL_CODE_{code.name}"
    assert refused.reason == "why"


@pytest.mark.parametrize("outcome", effects.Outcome)
def test_every_outcome_has_a_code_of_its_own(outcome: effects.Outcome) -> None:
    goodbye = wire(convert.goodbye(convert.OUTCOMES[outcome], "why")).goodbye
    assert pb.RunOutcome.Name(goodbye.outcome) == f"RUN_OUTCOME_{outcome.name}"


@pytest.mark.parametrize("rejection", Rejection)
def test_a_rejection_travels_by_its_value(rejection: Rejection) -> None:
    result = convert.rejected(LeaseId(3), rejection, "why")
    assert Rejection(result.rejection) is rejection
    assert (result.lease, result.verdict, result.message) == (3, pb.PUSH_VERDICT_REFUSED, "why")


def test_a_hello_is_read_whole() -> None:
    message = pb.Hello(
        name="w-1.a_b", incarnation="a" * 32, host="box\n", pid=9, device="cpu", pace=2.0, leases=[LIFE_2, 5]
    )
    assert convert.hello(SessionId(4), message) == events.Hello(
        session=SessionId(4),
        name=WorkerName("w-1.a_b"),
        incarnation=Incarnation("a" * 32),
        address="box pid 9",
        device="cpu",
        pace=2.0,
        leases=(LeaseId(LIFE_2), LeaseId(5)),
    )


@pytest.mark.parametrize("pace", [0.0, -1.0, math.nan, math.inf])
def test_a_pace_that_is_none_is_unknown(pace: float) -> None:
    assert convert.hello(SessionId(4), pb.Hello(name="w", incarnation="0" * 32, pace=pace)).pace is None


@given(task=ids, seconds=st.floats(0, 1e9), loss_sum=numbers, samples=st.integers(0, 2**40))
def test_a_report_is_read_whole(task: int, seconds: float, loss_sum: float, samples: int) -> None:
    message = pb.Report(
        lease=5, task=task, outcome=pb.TASK_OUTCOME_DONE, seconds=seconds, loss_sum=loss_sum, samples=samples
    )
    result = TaskResult(task=TaskId(task), seconds=seconds, loss_sum=loss_sum, samples=samples)
    assert convert.report(SessionId(1), message) == events.TaskReported(SessionId(1), LeaseId(5), result)


@pytest.mark.parametrize("failure", TaskFailure)
def test_every_failure_is_read_whole(failure: TaskFailure) -> None:
    outcome = f"TASK_OUTCOME_{failure.name}"
    message = pb.Report(lease=5, task=6, outcome=outcome, seconds=0.5, message="a\nb", traceback="long\ntext")
    event = convert.report(SessionId(1), message)
    assert isinstance(event, events.TaskFailed)
    assert (event.failure, event.seconds, event.message) == (failure, 0.5, "a b")
    assert event.traceback_text == "long\ntext"


@given(st.lists(st.tuples(ids, st.floats(0, 1e6), numbers, st.integers(0, 2**40)), max_size=5))
def test_an_offer_is_read_whole(rows: list[tuple[int, float, float, int]]) -> None:
    tasks, seconds, loss_sums, samples = zip(*rows, strict=True) if rows else ((), (), (), ())
    manifest = pb.Manifest(
        lease=5,
        incarnation="a" * 32,
        version=3,
        tasks=tasks,
        seconds=seconds,
        loss_sums=loss_sums,
        samples=samples,
        wasted_s=0.25,
    )
    event = convert.offered(PushId(8), pb.Manifest.FromString(manifest.SerializeToString()))
    assert (event.push, event.lease, event.incarnation, event.version) == (8, 5, "a" * 32, 3)
    assert event.wasted_s == 0.25
    assert [(r.task, r.seconds, r.loss_sum, r.samples) for r in event.results] == rows


LAYOUT = ContributionLayout(
    (
        Segment("trainable.float32", "float32", 32, Rule.SUM, 0, 0),
        Segment("copied.int64", "int64", 8, Rule.LOWEST, 128, 1),
    )
)


def manifest(**changes: Any) -> pb.Manifest:
    segments = [pb.SegmentInfo(name=s.name, dtype=s.dtype, bytes=s.nbytes) for s in LAYOUT.segments]
    values: dict[str, Any] = {"codec": pb.CODEC_IDENTITY, "total_bytes": LAYOUT.nbytes, "segments": segments}
    return pb.Manifest(**{**values, **changes})


def test_a_manifest_that_fits_has_no_fault() -> None:
    assert convert.ManifestCheck(LAYOUT).fault(manifest()) is None


def test_a_manifest_is_held_against_the_layout_segment_by_segment() -> None:
    check = convert.ManifestCheck(LAYOUT)
    good = list(manifest().segments)
    other_dtype = pb.SegmentInfo(name=good[0].name, dtype="bfloat16", bytes=good[0].bytes)
    other_size = pb.SegmentInfo(name=good[1].name, dtype=good[1].dtype, bytes=72)
    faults = [
        (manifest(codec=0), Rejection.WRONG_DTYPE, "codec is 0"),
        (manifest(segments=good[:1]), Rejection.WRONG_SIZE, "expected trainable.float32, copied.int64"),
        (manifest(segments=good[::-1]), Rejection.WRONG_SIZE, "segments are copied.int64, trainable.float32"),
        (manifest(segments=[other_dtype, good[1]]), Rejection.WRONG_DTYPE, "'bfloat16': expected 'float32'"),
        (manifest(segments=[good[0], other_size]), Rejection.WRONG_SIZE, "copied.int64 has 72 bytes: expected 64"),
        (manifest(total_bytes=1), Rejection.WRONG_SIZE, "1 bytes announced: expected 192"),
    ]
    for bad, rejection, words in faults:
        fault = check.fault(bad)
        assert fault is not None
        assert fault[0] is rejection
        assert words in fault[1]


@given(st.text(max_size=400))
def test_what_a_peer_writes_becomes_one_short_printable_line(text: str) -> None:
    line = convert.one_line(text)
    assert len(line) <= 200
    assert line.isprintable()


def test_a_name_of_another_length_is_no_name() -> None:
    for name in ("", "x" * 65, "ümlaut", "a b"):
        with pytest.raises(ProtocolError, match="name is"):
            convert.hello(SessionId(1), pb.Hello(name=name, incarnation="0" * 32))
