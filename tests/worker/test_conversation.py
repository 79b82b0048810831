"""A real worker speaks with a scripted server: what it pushes is what its tasks give, to the byte."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from paceline.errors import RefusedError, RunFailedError, UnavailableError
from paceline.protos import coordinator_pb2 as pb
from paceline.protos.framing import CHUNK_BYTES, PROTOCOL_VERSION, crc32c
from tests.worker.conftest import RunningWorker
from tests.worker.peer import Break, Peer, ServerSide, Session, ranges, until

TINY = "tests/jobs.py:Tiny"
DIGITS = "tests/jobs.py:DigitsLike"
TANGLED = "tests/jobs.py:Augmented"


def check(contribution: pb.Contribution, side: ServerSide, tasks: list[int], version: int = 0) -> None:
    manifest = contribution.manifest
    assert list(manifest.tasks) == sorted(tasks)
    assert manifest.version == version
    assert manifest.total_bytes == len(contribution.payload) == sum(s.bytes for s in manifest.segments)
    assert side.gives(contribution.payload, tasks, version)
    assert contribution.payload_crc32c == crc32c(contribution.payload)


def other_constants() -> ServerSide:
    """Make a server whose constants are not those that the seed gives: it was started from saved weights."""
    side = ServerSide(TANGLED)
    side.flat.named_views()["table"].mul_(2.0)
    return side


class Joined:
    """A worker that has joined."""

    def __init__(self, peer: Peer, job: str, shared: dict[str, Any] | None = None, **settings: Any) -> None:
        self.peer = peer
        self.side = ServerSide(job, **(shared or {}))
        self.worker = RunningWorker(peer, job, **settings)
        self.session = self.worker.join(peer, self.side)

    def resume(self, leases: list[int]) -> Session:
        self.session = self.peer.session()
        hello = self.session.expect("hello")
        assert list(hello.leases) == leases
        self.session.send(self.side.welcome(resumed=True))
        return self.session

    def end(self) -> None:
        self.worker.end(self.session)


# ---- hello ----------------------------------------------------------------------------------------------------------


def test_hello_says_who_it_is(peer: Peer) -> None:
    worker = RunningWorker(peer, TINY, pace=3.0)
    session = peer.session()
    hello = session.expect("hello")
    assert hello.protocol_version == PROTOCOL_VERSION
    assert (hello.name, hello.device, hello.pace) == ("w1", "cpu", 3.0)
    assert len(hello.incarnation) == 32
    session.goodbye(pb.RUN_OUTCOME_INTERRUPTED, "stopped by hand")
    assert "stopped by hand" in worker.finished()


@pytest.mark.parametrize(
    "code",
    [
        pb.REFUSAL_CODE_PROTOCOL,
        pb.REFUSAL_CODE_NAME_IN_USE,
        pb.REFUSAL_CODE_SUPERSEDED,
        pb.REFUSAL_CODE_BAD_HELLO,
        pb.REFUSAL_CODE_JOB_DIFFERS,
    ],
)
def test_refused_worker_ends_with_the_reason(peer: Peer, code: pb.RefusalCode) -> None:
    worker = RunningWorker(peer, TINY)
    session = peer.session()
    session.expect("hello")
    session.say(refused=pb.Refused(code=code, reason="the reason"))
    session.end()
    with pytest.raises(RefusedError, match="the reason") as caught:
        worker.finished()
    assert caught.value.exit_code == 77


def test_worker_of_a_run_that_is_over_ends_well(peer: Peer) -> None:
    worker = RunningWorker(peer, TINY)
    session = peer.session()
    session.expect("hello")
    session.say(refused=pb.Refused(code=pb.REFUSAL_CODE_RUN_OVER, reason="the run is over: 3 rounds are done"))
    session.end()
    assert "3 rounds are done" in worker.finished()


def test_failed_run_ends_the_worker_with_its_reason(peer: Peer) -> None:
    joined = Joined(peer, TINY)
    joined.session.goodbye(pb.RUN_OUTCOME_FAILED, "task 3 failed on w1")
    with pytest.raises(RunFailedError, match="task 3 failed on w1"):
        joined.worker.finished()


def test_differing_job_is_said_with_its_fingerprint_and_not_worked_on(peer: Peer) -> None:
    side = ServerSide(DIGITS)
    worker = RunningWorker(peer, "tests/jobs.py:DigitsLikeReversed")
    session = peer.session()
    session.expect("hello")
    session.send(side.welcome())
    assert session.expect("ready").job_fingerprint_json != side.fingerprint_json()
    session.say(refused=pb.Refused(code=pb.REFUSAL_CODE_JOB_DIFFERS, reason="the samples differ"))
    session.end()
    with pytest.raises(RefusedError, match="the samples differ"):
        worker.finished()


def test_unknown_settings_of_a_newer_server_are_refused_in_words(peer: Peer) -> None:
    side = ServerSide(TINY)
    worker = RunningWorker(peer, TINY)
    session = peer.session()
    session.expect("hello")
    welcome = side.welcome()
    welcome.welcome.settings_json = '{"seed": 1, "novelty": 2}'
    session.send(welcome)
    with pytest.raises(RefusedError, match="settings that"):
        worker.finished()


def test_server_that_is_none_of_ours_is_named(peer: Peer) -> None:
    worker = RunningWorker(peer, TINY)
    peer.session().end(Break(grpc.StatusCode.UNIMPLEMENTED))
    with pytest.raises(UnavailableError, match="no paceline server"):
        worker.finished()


# ---- inside the session ---------------------------------------------------------------------------------------------


def test_inline_lease_is_reported_and_its_contribution_travels_with_the_last_report(peer: Peer) -> None:
    joined = Joined(peer, TINY)
    joined.session.send(joined.side.lease(1, [5, 3, 9]))
    reports = [joined.session.expect("report") for _ in range(3)]
    assert [report.task for report in reports] == [5, 3, 9]
    assert all(report.outcome == pb.TASK_OUTCOME_DONE and report.seconds > 0 for report in reports)
    assert [report.HasField("contribution") for report in reports] == [False, False, True]
    last = reports[-1].contribution
    check(last, joined.side, [5, 3, 9])
    assert list(last.manifest.seconds) == [reports[1].seconds, reports[0].seconds, reports[2].seconds]
    assert list(last.manifest.loss_sums) == [reports[1].loss_sum, reports[0].loss_sum, reports[2].loss_sum]
    joined.session.accept(1)
    joined.end()
    assert peer.transfers.empty()


def test_sums_and_versions_of_leases_in_a_row_are_kept_apart(peer: Peer) -> None:
    joined = Joined(peer, DIGITS, {"sums": "exact"})
    joined.side.version(1, 0.5)
    joined.session.send(joined.side.lease(1, [0, 1]))
    joined.session.send(joined.side.lease(2, [2, 3], version=1))
    # The same version again: it is held, and not sent once more.
    joined.session.send(joined.side.lease(3, [4], version=1, inline=False))
    reports = [joined.session.expect("report") for _ in range(5)]
    check(reports[1].contribution, joined.side, [0, 1], 0)
    check(reports[3].contribution, joined.side, [2, 3], 1)
    check(reports[4].contribution, joined.side, [4], 1)
    joined.end()
    assert peer.transfers.empty()


def test_constants_and_unused_parameters_arrive(peer: Peer) -> None:
    side = other_constants()
    worker = RunningWorker(peer, TANGLED)
    session = worker.join(peer, side)
    session.send(side.lease(1, [7]))
    check(session.expect("report").contribution, side, [7])
    worker.end(session)
    assert peer.transfers.empty()


def test_verdicts_decide_what_is_summed_and_collect_what_is_pushed(peer: Peer) -> None:
    joined = Joined(peer, DIGITS, {"sums": "exact"})
    session = joined.session
    session.send(joined.side.lease(1, [0, 1], in_advance=False))
    assert session.expect("report").task == 0
    # Without its verdict no second task is computed.
    session.say(grant=pb.Grant(lease=1, tasks=ranges([2])))
    session.say(are_you_there=pb.AreYouThere())
    session.expect("here")
    assert session.quiet()
    session.say(verdict=pb.Verdict(lease=1, task=0, keep=True))
    assert session.expect("report").task == 1
    session.say(verdict=pb.Verdict(lease=1, task=1, keep=False))
    assert session.expect("report").task == 2
    session.say(collect=pb.Collect(lease=1, kept=ranges([0, 2])))
    contribution = session.expect("contribution")
    check(contribution, joined.side, [0, 2])
    joined.session.accept(1)
    joined.end()


def test_cancelled_lease_is_ended_and_its_sleeping_task_is_billed(peer: Peer) -> None:
    joined = Joined(peer, TINY, delay="const:600")
    joined.session.send(joined.side.lease(1, [0, 1], in_advance=False))
    joined.session.say(cancel=pb.Cancel(lease=1))
    ended = joined.session.expect("lease_ended")
    assert ended.lease == 1
    assert 0 <= ended.wasted_s < 60
    joined.end()


def test_collect_in_a_sleep_pushes_at_once_and_bills_the_task(peer: Peer) -> None:
    joined = Joined(peer, "tests/jobs.py:Slow")
    session = joined.session
    session.send(joined.side.lease(1, [0], in_advance=False))
    session.expect("report")
    session.say(verdict=pb.Verdict(lease=1, task=0, keep=True))
    session.say(grant=pb.Grant(lease=1, tasks=ranges([1, 2, 3, 4, 5, 6, 7, 8])))
    session.say(collect=pb.Collect(lease=1, kept=ranges([0])))
    while (message := session.next()) is not None and message.WhichOneof("message") != "contribution":
        assert message.WhichOneof("message") in ("report", "heartbeat")
    assert message is not None
    check(message.contribution, joined.side, [0])
    joined.end()


def test_what_is_said_of_an_unknown_lease_is_answered_by_its_end(peer: Peer) -> None:
    joined = Joined(peer, TINY)
    joined.session.say(cancel=pb.Cancel(lease=17))
    assert joined.session.expect("lease_ended").lease == 17
    joined.session.say(collect=pb.Collect(lease=18, kept=ranges([1])))
    assert joined.session.expect("lease_ended").lease == 18
    joined.end()


def test_failing_task_is_reported_with_its_traceback_and_the_others_are_pushed(peer: Peer) -> None:
    joined = Joined(peer, "tests/jobs.py:FailsOnSample", {"micro_batch": 8})
    joined.session.send(joined.side.lease(1, list(range(8))))
    reports = [joined.session.expect("report") for _ in range(8)]
    failed = [report for report in reports if report.outcome != pb.TASK_OUTCOME_DONE]
    assert len(failed) == 1
    assert failed[0].outcome == pb.TASK_OUTCOME_EXCEPTION
    assert "sample 5 cannot be read" in failed[0].message
    assert "raise ValueError" in failed[0].traceback
    tasks = [task for task in range(8) if task != failed[0].task]
    contribution = reports[-1].contribution if failed[0].task != 7 else joined.session.expect("contribution")
    check(contribution, joined.side, tasks)
    joined.end()


def test_lease_whose_tasks_all_fail_is_ended(peer: Peer) -> None:
    joined = Joined(peer, "tests/jobs.py:NonFiniteOnSample", {"micro_batch": 64})
    joined.session.send(joined.side.lease(1, [0]))
    assert joined.session.expect("report").outcome == pb.TASK_OUTCOME_NON_FINITE
    assert joined.session.expect("lease_ended").lease == 1
    joined.end()


def test_task_over_its_limit_is_reported_and_the_next_goes_on(peer: Peer) -> None:
    joined = Joined(peer, TINY, delay="const:600")
    joined.session.send(joined.side.lease(1, [0, 1], in_advance=False, task_limit_s=0.05))
    for task in (0, 1):
        report = joined.session.expect("report")
        assert (report.task, report.outcome) == (task, pb.TASK_OUTCOME_TIME_LIMIT)
        assert 0.05 <= report.seconds < 60
    joined.end()


def test_idle_worker_gives_signs_of_life(peer: Peer) -> None:
    joined = Joined(peer, TINY, {"heartbeat_s": 0.05})
    joined.session.send(joined.side.lease(1, [0]))
    joined.session.expect("report")
    for _ in range(3):
        message = joined.session.next()
        assert message is not None
        assert message.WhichOneof("message") == "heartbeat"
        # The warm-up and the task.
        assert message.heartbeat.micro_steps >= 1
    joined.end()


# ---- transfers ------------------------------------------------------------------------------------------------------


def test_large_versions_are_pulled_and_large_contributions_pushed_in_chunks(peer: Peer) -> None:
    joined = Joined(peer, "tests/worker/medium_job.py:Medium")
    joined.session.send(joined.side.lease(1, [0, 1], inline=False))
    transfer = peer.transfer()
    assert transfer.expect("pull").version == 0
    transfer.send_image(joined.side.images[0])
    assert [joined.session.expect("report").task for _ in range(2)] == [0, 1]
    manifest = transfer.expect("push")
    assert list(manifest.tasks) == [0, 1]
    # Not a byte before the grant.
    assert transfer.inbox.empty()
    transfer.say(push_granted=pb.PushGranted(lease=1))
    payload = transfer.chunks(manifest.total_bytes)
    assert len(payload) > 4 * CHUNK_BYTES
    assert transfer.expect("push_done").lease == 1
    assert joined.side.gives(payload, [0, 1])
    transfer.say(push_result=pb.PushResult(lease=1, verdict=pb.PUSH_VERDICT_ACCEPTED))
    # Two connections, so that a push never delays a heartbeat.
    assert transfer.address != joined.session.address
    joined.end()


@pytest.fixture
def pushing(peer: Peer) -> Joined:
    """A worker that moves everything over Transfer, at a small model's price."""
    return Joined(peer, DIGITS, {"inline_bytes": 0, "sums": "exact"})


def test_damaged_pull_is_pulled_again(peer: Peer, pushing: Joined) -> None:
    pushing.session.send(pushing.side.lease(1, [4], inline=False))
    transfer = peer.transfer()
    transfer.expect("pull")
    transfer.send_image(pushing.side.images[0], damaged=True)
    again = peer.transfer()
    again.expect("pull")
    again.send_image(pushing.side.images[0])
    manifest = again.expect("push")
    again.say(push_granted=pb.PushGranted(lease=1))
    assert pushing.side.gives(again.chunks(manifest.total_bytes), [4])
    pushing.end()


def test_pull_cut_off_begins_again(peer: Peer) -> None:
    joined = Joined(peer, "tests/worker/medium_job.py:Medium")
    joined.session.send(joined.side.lease(1, [3], inline=False))
    transfer = peer.transfer()
    transfer.expect("pull")
    transfer.send_image(joined.side.images[0], up_to_bytes=2 * CHUNK_BYTES)
    transfer.end(Break())
    again = peer.transfer()
    again.expect("pull")
    again.send_image(joined.side.images[0])
    manifest = again.expect("push")
    again.say(push_granted=pb.PushGranted(lease=1))
    assert joined.side.gives(again.chunks(manifest.total_bytes), [3])
    joined.end()


def test_damaged_inline_version_is_pulled(peer: Peer, pushing: Joined) -> None:
    lease = pushing.side.lease(1, [4])
    lease.lease.state_crc32c ^= 1
    pushing.session.send(lease)
    peer.transfer().expect("pull")
    pushing.end()


def test_push_cut_off_is_pushed_again_on_a_new_stream(peer: Peer, pushing: Joined) -> None:
    pushing.session.send(pushing.side.lease(1, [4]))
    transfer = peer.transfer()
    transfer.expect("push")
    transfer.say(push_granted=pb.PushGranted(lease=1))
    transfer.end(Break())
    again = peer.transfer()
    manifest = again.expect("push")
    again.say(push_granted=pb.PushGranted(lease=1))
    assert pushing.side.gives(again.chunks(manifest.total_bytes), [4])
    again.expect("push_done")
    again.say(push_result=pb.PushResult(lease=1, verdict=pb.PUSH_VERDICT_ACCEPTED))
    pushing.end()


def test_version_that_is_gone_gives_the_lease_back(peer: Peer, pushing: Joined) -> None:
    pushing.session.send(pushing.side.lease(1, [4], inline=False))
    transfer = peer.transfer()
    transfer.expect("pull")
    transfer.say(pull_gone=pb.PullGone(version=0))
    assert pushing.session.expect("version_gone").lease == 1
    # And it goes on.
    pushing.session.send(pushing.side.lease(2, [4]))
    assert pushing.session.expect("report").lease == 2
    assert transfer.expect("push").lease == 2
    pushing.end()


def test_constants_are_pulled_where_they_do_not_come_inline(peer: Peer) -> None:
    side = other_constants()
    worker = RunningWorker(peer, TANGLED)
    session = peer.session()
    session.expect("hello")
    session.send(side.welcome(inline_constants=False))
    transfer = peer.transfer()
    assert transfer.expect("pull").constants
    transfer.send_image(bytes(side.flat.constants_view), constants=True)
    session.expect("ready")
    session.send(side.lease(1, [7]))
    check(session.expect("report").contribution, side, [7])
    worker.end(session)


def test_sum_on_its_way_is_not_touched_by_the_next_lease(peer: Peer, pushing: Joined) -> None:
    pushing.session.send(pushing.side.lease(1, [0]))
    pushing.session.send(pushing.side.lease(2, [1, 2], inline=False))
    transfer = peer.transfer()
    first = transfer.expect("push")
    # The next lease's first task is computed and reported meanwhile; it waits for the sum.
    assert [pushing.session.expect("report").task for _ in range(2)] == [0, 1]
    pushing.session.say(are_you_there=pb.AreYouThere())
    pushing.session.expect("here")
    transfer.say(push_granted=pb.PushGranted(lease=1))
    assert pushing.side.gives(transfer.chunks(first.total_bytes), [0])
    transfer.expect("push_done")
    assert pushing.session.quiet()
    transfer.say(push_result=pb.PushResult(lease=1, verdict=pb.PUSH_VERDICT_ACCEPTED))
    assert pushing.session.expect("report").task == 2
    second = transfer.expect("push")
    transfer.say(push_granted=pb.PushGranted(lease=2))
    assert pushing.side.gives(transfer.chunks(second.total_bytes), [1, 2])
    pushing.end()


def test_refused_push_is_dropped_and_the_worker_goes_on(peer: Peer, pushing: Joined) -> None:
    pushing.session.send(pushing.side.lease(1, [0]))
    transfer = peer.transfer()
    transfer.expect("push")
    refusal = pb.PushResult(lease=1, verdict=pb.PUSH_VERDICT_REFUSED, rejection="stale", message="lease 1 is void")
    transfer.say(push_result=refusal)
    pushing.session.expect("report")
    pushing.session.send(pushing.side.lease(2, [1], inline=False))
    assert pushing.session.expect("report").task == 1
    assert transfer.expect("push").lease == 2
    pushing.end()
    assert any("refused (stale)" in line for line in pushing.worker.said)


def test_cancel_breaks_off_a_push(peer: Peer, pushing: Joined) -> None:
    pushing.session.send(pushing.side.lease(1, [0]))
    transfer = peer.transfer()
    transfer.expect("push")
    pushing.session.expect("report")
    pushing.session.say(cancel=pb.Cancel(lease=1))
    assert pushing.session.expect("lease_ended").lease == 1
    assert transfer.next() is None
    pushing.end()


# ---- broken sessions ------------------------------------------------------------------------------------------------


def test_broken_session_is_resumed_with_its_leases_and_says_again_what_was_not_answered(peer: Peer) -> None:
    joined = Joined(peer, DIGITS)
    joined.session.send(joined.side.lease(1, [0, 1, 2], in_advance=False))
    joined.session.expect("report")
    joined.session.say(verdict=pb.Verdict(lease=1, task=0, keep=True))
    first = joined.session.expect("report")
    assert first.task == 1
    joined.session.end(Break())
    session = joined.resume([1])
    # Task 0 has its verdict; task 1 is said again, with the same numbers.
    assert session.expect("report") == first
    # The server says again what it thinks: nothing is done twice.
    session.send(joined.side.lease(1, [0, 1, 2], in_advance=False))
    session.say(verdict=pb.Verdict(lease=1, task=0, keep=True))
    session.say(verdict=pb.Verdict(lease=1, task=1, keep=True))
    assert session.expect("report").task == 2
    session.say(collect=pb.Collect(lease=1, kept=ranges([0, 1, 2])))
    check(session.expect("contribution"), joined.side, [0, 1, 2])
    joined.end()


def test_inline_contribution_without_an_answer_is_sent_again(peer: Peer) -> None:
    joined = Joined(peer, TINY)
    joined.session.send(joined.side.lease(1, [0]))
    contribution = joined.session.expect("report").contribution
    joined.session.end(Break())
    session = joined.resume([1])
    assert session.expect("contribution") == contribution
    session.accept(1)
    session.say(are_you_there=pb.AreYouThere())
    session.expect("here")
    session.end(Break())
    joined.resume([])
    joined.end()


def test_tasks_missed_with_the_session_are_taken_over(peer: Peer) -> None:
    joined = Joined(peer, TINY)
    joined.session.send(joined.side.lease(1, [0], in_advance=False))
    joined.session.expect("report")
    joined.session.end(Break())
    session = joined.resume([1])
    session.expect("report")
    # A grant of task 4 was lost with the old session.
    session.send(joined.side.lease(1, [0, 4], in_advance=False))
    session.say(verdict=pb.Verdict(lease=1, task=0, keep=False))
    assert session.expect("report").task == 4
    joined.end()


def test_session_may_break_while_a_push_goes_on(peer: Peer, pushing: Joined) -> None:
    pushing.session.send(pushing.side.lease(1, [0]))
    transfer = peer.transfer()
    manifest = transfer.expect("push")
    pushing.session.end(Break())
    pushing.resume([1])
    transfer.say(push_granted=pb.PushGranted(lease=1))
    assert pushing.side.gives(transfer.chunks(manifest.total_bytes), [0])
    transfer.expect("push_done")
    pushing.end()


def test_worker_taken_for_lost_drops_its_leases_and_joins_afresh(peer: Peer) -> None:
    joined = Joined(peer, TINY)
    joined.session.send(joined.side.lease(1, [0], in_advance=False))
    joined.session.expect("report")
    joined.session.end(Break())
    session = peer.session()
    first = session.expect("hello")
    assert list(first.leases) == [1]
    session.say(refused=pb.Refused(code=pb.REFUSAL_CODE_LOST, reason="taken for lost"))
    session.end()
    session = peer.session()
    hello = session.expect("hello")
    assert not hello.leases
    assert (hello.name, hello.incarnation) == (first.name, first.incarnation)
    session.send(joined.side.welcome())
    session.expect("ready")
    # It may be another run: what it calls version 0 is something else.
    joined.side.version(0, 0.5)
    session.send(joined.side.lease(2, [0, 1]))
    reports = [session.expect("report") for _ in range(2)]
    # The lost lease's sum is not in it, nor the old version 0.
    check(reports[-1].contribution, joined.side, [0, 1])
    joined.session = session
    joined.end()


def test_worker_taken_for_lost_breaks_off_its_push(peer: Peer, pushing: Joined) -> None:
    pushing.session.send(pushing.side.lease(1, [0]))
    transfer = peer.transfer()
    transfer.expect("push")
    pushing.session.end(Break())
    session = peer.session()
    session.expect("hello")
    session.send(pushing.side.welcome())
    session.expect("ready")
    assert transfer.next() is None
    pushing.session = session
    pushing.end()


def test_server_with_other_settings_makes_it_build_its_job_anew(peer: Peer) -> None:
    joined = Joined(peer, DIGITS)
    joined.session.end(Break())
    other = ServerSide(DIGITS, seed=5, sums="exact", micro_batch=16)
    session = peer.session()
    session.expect("hello")
    session.send(other.welcome())
    assert session.expect("ready").job_fingerprint_json == other.fingerprint_json()
    session.send(other.lease(1, [3]))
    check(session.expect("report").contribution, other, [3])
    joined.session = session
    joined.end()


def test_ready_that_may_be_lost_is_said_again(peer: Peer) -> None:
    joined = Joined(peer, TINY)
    joined.session.end(Break())
    joined.resume([]).expect("ready")
    joined.session.send(joined.side.lease(1, [0]))
    joined.session.expect("report")
    joined.session.accept(1)
    joined.session.end(Break())
    # It was given a lease: the server knows.
    session = peer.session()
    session.expect("hello")
    session.send(joined.side.welcome(resumed=True))
    session.say(are_you_there=pb.AreYouThere())
    message = session.next()
    while message is not None and message.WhichOneof("message") == "contribution":
        message = session.next()
    assert message is not None
    assert message.WhichOneof("message") == "here"
    joined.session = session
    joined.end()


def test_server_that_is_gone_for_good_is_given_up(peer: Peer) -> None:
    worker = RunningWorker(peer, TINY, reconnect_for_s=0.3)
    session = peer.session()
    session.expect("hello")
    session.send(ServerSide(TINY).welcome())
    session.expect("ready")
    peer.stop()
    with pytest.raises(UnavailableError, match=peer.address):
        worker.finished()


# ---- leaving --------------------------------------------------------------------------------------------------------


def test_draining_worker_pushes_the_part_that_it_has(peer: Peer) -> None:
    joined = Joined(peer, "tests/jobs.py:Slow")
    joined.session.send(joined.side.lease(1, list(range(1000))))
    joined.session.expect("report")
    joined.worker.worker.drain()
    reports = 1
    drained = False
    while True:
        message = joined.session.next()
        assert message is not None
        if message.WhichOneof("message") == "drain":
            drained = True
        if message.WhichOneof("message") == "report":
            reports += 1
        if message.WhichOneof("message") == "contribution" or message.report.HasField("contribution"):
            break
    assert drained
    assert reports < 1000
    contribution = message.contribution if message.HasField("contribution") else message.report.contribution
    check(contribution, joined.side, list(range(reports)))
    joined.session.accept(1)
    joined.session.goodbye(pb.RUN_OUTCOME_DRAINED)
    assert joined.worker.finished() == "drained"


def test_drain_is_said_again_after_a_broken_session(peer: Peer) -> None:
    joined = Joined(peer, TINY, delay="const:600")
    joined.session.send(joined.side.lease(1, [0]))
    until(lambda: _running(joined))
    joined.worker.worker.drain()
    joined.session.expect("drain")
    joined.session.end(Break())
    session = joined.resume([1])
    session.expect("drain")
    joined.session.goodbye(pb.RUN_OUTCOME_DRAINED)
    joined.worker.finished()


def test_drained_worker_without_a_server_just_leaves(peer: Peer) -> None:
    joined = Joined(peer, TINY)
    peer.stop()
    joined.worker.worker.drain()
    assert joined.worker.finished() == "drained"


def test_server_that_goes_while_a_worker_with_nothing_drains_lets_it_leave(peer: Peer) -> None:
    joined = Joined(peer, TINY)
    joined.worker.worker.drain()
    joined.session.expect("drain")
    peer.stop()
    assert joined.worker.finished() == "drained"


def _running(joined: Joined) -> bool:
    with joined.worker.worker._desk.books() as book:
        return any(lease.running is not None for lease in book.held())
