"""A real worker whose sessions with a scripted server break."""

from __future__ import annotations

import pytest

from paceline.errors import UnavailableError
from paceline.protos import coordinator_pb2 as pb
from tests.worker.joined import DIGITS, TINY, Joined, RunningWorker, check
from tests.worker.peer import Break, Peer, ServerSide, ranges


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
