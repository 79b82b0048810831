"""A real worker pulls from and pushes to a scripted server, in chunks, well and badly."""

from __future__ import annotations

from paceline.protos import coordinator_pb2 as pb
from paceline.protos.framing import CHUNK_BYTES
from tests.worker.joined import TANGLED, Joined, RunningWorker, check, other_constants
from tests.worker.peer import Break, Peer


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
