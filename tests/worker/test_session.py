"""A real worker and a scripted server: hello, leases, leaving. What it pushes is what its tasks give, to the byte."""

from __future__ import annotations

import contextlib
import queue
import threading

import grpc
import pytest

from paceline.errors import RefusedError, RunFailedError, TryAgainError, UnavailableError
from paceline.protos import coordinator_pb2 as pb
from paceline.protos.framing import PROTOCOL_VERSION
from tests.worker.joined import DIGITS, TANGLED, TINY, Joined, RunningWorker, check, other_constants, running
from tests.worker.peer import Break, Peer, ServerSide, ranges, until


def test_hello_says_who_it_is(peer: Peer) -> None:
    worker = RunningWorker(peer, TINY, pace=3.0)
    session = peer.session()
    hello = session.expect("hello")
    assert hello.protocol_version == PROTOCOL_VERSION
    assert (hello.name, hello.device, hello.pace) == ("w1", "cpu", 3.0)
    assert len(hello.incarnation) == 32
    session.goodbye(pb.RUN_OUTCOME_DONE, "3 rounds are done")
    assert "3 rounds are done" in worker.finished()


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


def test_stopped_run_ends_the_worker_so_that_a_supervisor_starts_it_again(peer: Peer) -> None:
    joined = Joined(peer, TINY)
    joined.session.goodbye(pb.RUN_OUTCOME_STOPPED, "SIGTERM")
    with pytest.raises(TryAgainError, match="stopped: SIGTERM"):
        joined.worker.finished()


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
    def is_none() -> None:
        with contextlib.suppress(queue.Empty):
            while True:  # on a busy machine the first attempt may have been given up meanwhile
                peer.session().end(Break(grpc.StatusCode.UNIMPLEMENTED))

    worker = RunningWorker(peer, TINY)
    threading.Thread(target=is_none, daemon=True).start()
    with pytest.raises(UnavailableError, match="no paceline server"):
        worker.finished()


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
    until(lambda: running(joined))
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
