"""Pulls and pushes in chunks over real gRPC, well and badly made."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from paceline.coordination.effects import Outcome
from paceline.coordination.events import Rejection
from paceline.flat import build_model
from paceline.protos import coordinator_pb2 as pb
from paceline.protos.framing import CHUNK_BYTES, PROTOCOL_VERSION, frame_chunk
from paceline.server.staging import FLOOR_WINDOW_S
from paceline.server.transfer import Source
from paceline.settings import RunSettings
from tests.jobs import Tiny
from tests.server.raw_worker import LIMIT_S, RawWorker, Run, serving, settings, task_ids

MEDIUM = "tests/server/medium.py:Medium"


def medium(run_dir: Path, **changes: Any) -> RunSettings:
    """Settings of a run whose tensors go in chunks."""
    return settings(run_dir, job=MEDIUM, **changes)


async def leased(run: Run, worker: RawWorker) -> pb.Lease:
    """Let a worker join and give its first lease."""
    await worker.join()
    lease: pb.Lease = await worker.hear("lease")
    assert not lease.state
    return lease


async def test_a_version_is_pulled_and_a_contribution_pushed_in_chunks(tmp_path: Path) -> None:
    async with serving(medium(tmp_path, rounds=5)) as run, RawWorker(run.address, job=MEDIUM) as worker:
        lease = await leased(run, worker)
        async with worker.transfer() as transfer:
            before = np.frombuffer(await transfer.pull(version=0), np.float32)
            assert before.tobytes() == bytes(worker.flat.version_view)
            data = worker.payload(8.0)
            assert len(data) > 2 * CHUNK_BYTES
            result = await transfer.push(worker.manifest(lease), data)
            assert result.verdict == pb.PUSH_VERDICT_ACCEPTED
            lease = await worker.hear("lease")
            after = np.frombuffer(await transfer.pull(version=1), np.float32)
            used = before != 0
            np.testing.assert_allclose(after[used], before[used] - 0.01, rtol=0, atol=1e-7)
            await transfer.push(worker.manifest(lease), data)
            for _ in range(3):
                await transfer.push(worker.manifest(await worker.hear("lease")), data)
        ended = await run.end()
    assert ended.outcome is Outcome.DONE
    assert ended.summary["bytes"] == {"pulled": 2 * len(before.tobytes()), "pushed": 5 * len(data)}


async def test_constants_are_pulled_once_and_whole(tmp_path: Path) -> None:
    job = "tests/server/medium.py:MediumFrozen"
    async with serving(settings(tmp_path, job=job)) as run, RawWorker(run.address, job=job) as worker:
        await worker.join()
        assert worker.welcome.constants_bytes > 2 * CHUNK_BYTES
        assert not worker.welcome.constants
        async with worker.transfer() as transfer:
            assert await transfer.pull(constants=True) == bytes(worker.flat.constants_view)


async def test_small_models_may_be_transferred_too(tmp_path: Path) -> None:
    async with serving(settings(tmp_path, inline_bytes=0, rounds=1)) as run, RawWorker(run.address) as worker:
        lease = await leased(run, worker)
        async with worker.transfer() as transfer:
            assert await transfer.pull(constants=True) == b""
            await transfer.pull(version=0)
            assert (await transfer.push(worker.manifest(lease), worker.payload())).verdict == pb.PUSH_VERDICT_ACCEPTED
        assert (await run.end()).outcome is Outcome.DONE


async def test_a_version_that_is_not_there_is_gone(tmp_path: Path) -> None:
    async with serving(medium(tmp_path)) as run, RawWorker(run.address, job=MEDIUM) as worker:
        lease = await leased(run, worker)
        async with worker.transfer() as transfer:
            await transfer.say(pull=pb.PullRequest(version=5))
            assert (await transfer.hear("pull_gone")).version == 5
        await worker.say(version_gone=pb.VersionGone(lease=lease.lease))
        again = await worker.hear("lease")
        assert again.lease != lease.lease
        assert task_ids(again.tasks) == task_ids(lease.tasks)


async def test_a_stream_is_ended_with_its_reason_while_a_write_of_it_is_on_its_way(tmp_path: Path) -> None:
    async with serving(medium(tmp_path)) as run, RawWorker(run.address, job=MEDIUM) as worker:
        await leased(run, worker)
        for _ in range(20):
            async with worker.transfer() as transfer:
                await transfer.say(pull=pb.PullRequest(version=0))
                await transfer.send(b"\xff" * 10)
                with contextlib.suppress(grpc.aio.AioRpcError):
                    while await transfer.receive():  # what was written before comes first
                        pass
                assert await transfer.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_pull_during_an_update_is_told_that_its_version_is_gone_and_never_torn(tmp_path: Path) -> None:
    async with serving(medium(tmp_path)) as run, RawWorker(run.address, job=MEDIUM) as worker:
        lease = await leased(run, worker)
        held, release = threading.Event(), threading.Event()
        optimizer = run.server._prepared.updater.optimizer

        def hold(*_: object) -> None:
            held.set()
            assert release.wait(LIMIT_S)

        hook = optimizer.register_step_pre_hook(hold)
        async with worker.transfer() as transfer, worker.transfer() as other:
            pushing = asyncio.create_task(transfer.push(worker.manifest(lease), worker.payload(8.0)))
            assert await asyncio.to_thread(held.wait, LIMIT_S)
            await other.say(pull=pb.PullRequest(version=0))
            assert (await other.hear("pull_gone")).version == 0
            assert (await pushing).verdict == pb.PUSH_VERDICT_ACCEPTED
            hook.remove()
            release.set()
            await worker.hear("lease")
            assert len(await other.pull(version=1)) == worker.flat.layout.version_nbytes


@pytest.mark.parametrize("outlives", [True, False])
def test_where_late_work_counts_a_pull_outlives_its_version(outlives: bool) -> None:
    flat = build_model(Tiny(), 0)
    source = Source(flat, outlives=outlives)
    source.serve(3)
    slow, done = (source.open(pb.PullRequest(version=3)) for _ in range(2))
    assert slow is not None
    assert done is not None
    before = bytes(flat.version_view)
    slow.offset, done.offset = 100, len(before)
    source.serve(None)
    flat.version_view[:] = bytes(len(before))
    source.serve(4)
    assert source.has(slow) is outlives
    assert source.has(done) is False
    assert (bytes(slow.view) == before) is outlives
    assert source.open(pb.PullRequest(version=3)) is None


@pytest.mark.parametrize(
    ("kind", "rejection"),
    [
        ("a wrong checksum", Rejection.CHECKSUM),
        ("a chunk missing", Rejection.TRUNCATED),
        ("a byte missing", Rejection.TRUNCATED),
        ("a chunk too many", Rejection.WRONG_SIZE),
        ("a NaN in the last number", Rejection.NON_FINITE),
        ("an infinity in the first number", Rejection.NON_FINITE),
    ],
)
async def test_a_bad_push_is_refused_and_counted_and_training_goes_on(
    tmp_path: Path, kind: str, rejection: Rejection
) -> None:
    async with (
        serving(medium(tmp_path, rounds=1)) as run,
        RawWorker(run.address, job=MEDIUM) as worker,
        RawWorker(run.address, "w2", job=MEDIUM) as honest,
    ):
        lease = await leased(run, worker)
        data = bytearray(worker.payload(1.0))
        match kind:
            case "a chunk missing":
                del data[CHUNK_BYTES:]
            case "a byte missing":
                del data[-1:]
            case "a chunk too many":
                data += bytes(CHUNK_BYTES)
            case "a NaN in the last number":
                data[-4:] = np.float32("nan").tobytes()
            case "an infinity in the first number":
                data[:4] = np.float32("inf").tobytes()
        async with worker.transfer() as transfer:
            await transfer.say(push=worker.manifest(lease))
            await transfer.hear("push_granted")
            if kind == "a wrong checksum":
                await transfer.send(pb.TransferUp(chunk=bytes(data[:CHUNK_BYTES]), chunk_crc32c=1).SerializeToString())
                del data[:CHUNK_BYTES]
            await transfer.send_chunks(bytes(data))
            await transfer.say(push_done=pb.PushDone(lease=lease.lease))
            result = await transfer.hear("push_result")
            assert (result.verdict, result.rejection) == (pb.PUSH_VERDICT_REFUSED, rejection.value)
        assert run.server._parts.books.totals.rejected[rejection] == 1
        await honest.join()
        done: list[int] = []
        async with honest.transfer() as transfer:
            while sorted(done) != task_ids(lease.tasks):
                given = await honest.hear("lease")
                done += task_ids(given.tasks)
                await transfer.push(honest.manifest(given), honest.payload())
        assert (await run.end()).outcome is Outcome.DONE


async def test_a_push_that_was_cut_off_is_made_again_on_a_new_stream(tmp_path: Path) -> None:
    async with serving(medium(tmp_path)) as run, RawWorker(run.address, job=MEDIUM) as worker:
        lease = await leased(run, worker)
        async with worker.transfer() as transfer:
            await transfer.say(push=worker.manifest(lease))
            await transfer.hear("push_granted")
            await transfer.send_chunks(worker.payload()[:CHUNK_BYTES])
        async with worker.transfer() as transfer:
            assert (await transfer.push(worker.manifest(lease), worker.payload())).verdict == pb.PUSH_VERDICT_ACCEPTED
            await transfer.say(push=worker.manifest(lease))
            assert (await transfer.hear("push_result")).verdict == pb.PUSH_VERDICT_ACCEPTED
            await transfer.push(worker.manifest(await worker.hear("lease")), worker.payload())
        ended = await run.end()
    assert ended.summary["tasks"]["used"] == 4


async def test_pushes_wait_for_a_stage_and_come_through_one_after_another(tmp_path: Path) -> None:
    names = ["w1", "w2", "w3", "w4"]
    async with (
        serving(medium(tmp_path, rounds=1, tasks=4, min_workers=4)) as run,
        RawWorker(run.address, "w1", job=MEDIUM) as w1,
        RawWorker(run.address, "w2", job=MEDIUM) as w2,
        RawWorker(run.address, "w3", job=MEDIUM) as w3,
        RawWorker(run.address, "w4", job=MEDIUM) as w4,
    ):
        workers = [w1, w2, w3, w4]
        for worker in workers:
            await worker.join()
        leases = [await worker.hear("lease") for worker in workers]
        async with w1.transfer() as t1, w2.transfer() as t2, w3.transfer() as t3, w4.transfer() as t4:
            transfers = [t1, t2, t3, t4]
            for worker, lease, transfer in zip(workers, leases, transfers, strict=True):
                await transfer.say(push=worker.manifest(lease))
            async with asyncio.timeout(LIMIT_S):
                while run.server._parts.pool.waiting < 2:
                    await run.status()

            async def rest(worker: RawWorker, lease: pb.Lease, transfer: Any) -> pb.PushResult:
                await transfer.hear("push_granted")
                await transfer.send_chunks(worker.payload())
                await transfer.say(push_done=pb.PushDone(lease=lease.lease))
                result: pb.PushResult = await transfer.hear("push_result")
                return result

            results = await asyncio.gather(
                *(rest(*each) for each in zip(workers, leases, transfers, strict=True)),
            )
        assert [result.verdict for result in results] == [pb.PUSH_VERDICT_ACCEPTED] * len(names)
        assert (await run.end()).outcome is Outcome.DONE
        # Two stages serve all: one is the sum, one is filled again and again.
        assert len(run.server._parts.model._free) <= 2


async def test_a_push_that_is_cut_off_while_it_waits_takes_no_stage(tmp_path: Path) -> None:
    async with (
        serving(medium(tmp_path, rounds=1, tasks=3, min_workers=3)) as run,
        RawWorker(run.address, "w1", job=MEDIUM) as w1,
        RawWorker(run.address, "w2", job=MEDIUM) as w2,
        RawWorker(run.address, "w3", job=MEDIUM) as w3,
    ):
        for worker in (w1, w2, w3):
            await worker.join()
        leases = [await worker.hear("lease") for worker in (w1, w2, w3)]

        async def waiting(count: int) -> None:
            async with asyncio.timeout(LIMIT_S):
                while run.server._parts.pool.waiting != count:
                    await run.status()

        async with w1.transfer() as t1, w2.transfer() as t2:
            for worker, lease, transfer in ((w1, leases[0], t1), (w2, leases[1], t2)):
                await transfer.say(push=worker.manifest(lease))
                await transfer.hear("push_granted")
            async with w3.transfer() as t3:
                await t3.say(push=w3.manifest(leases[2]))
                await waiting(1)
            await waiting(0)
            for worker, lease, transfer in ((w1, leases[0], t1), (w2, leases[1], t2)):
                await transfer.send_chunks(worker.payload())
                await transfer.say(push_done=pb.PushDone(lease=lease.lease))
                assert (await transfer.hear("push_result")).verdict == pb.PUSH_VERDICT_ACCEPTED
        async with w3.transfer() as t3:
            assert (await t3.push(w3.manifest(leases[2]), w3.payload())).verdict == pb.PUSH_VERDICT_ACCEPTED
        assert (await run.end()).outcome is Outcome.DONE


async def test_pushes_that_send_nothing_while_another_waits_lose_their_stages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        serving(medium(tmp_path, rounds=1, tasks=3, min_workers=3)) as run,
        RawWorker(run.address, "w1", job=MEDIUM) as w1,
        RawWorker(run.address, "w2", job=MEDIUM) as w2,
        RawWorker(run.address, "w3", job=MEDIUM) as w3,
    ):
        for worker in (w1, w2, w3):
            await worker.join()
        leases = [await worker.hear("lease") for worker in (w1, w2, w3)]
        async with w1.transfer() as t1, w2.transfer() as t2, w3.transfer() as t3:
            for worker, lease, transfer in ((w1, leases[0], t1), (w2, leases[1], t2)):
                await transfer.say(push=worker.manifest(lease))
                await transfer.hear("push_granted")
            await t3.say(push=w3.manifest(leases[2]))
            async with asyncio.timeout(LIMIT_S):
                while run.server._parts.pool.waiting < 1:
                    await run.status()
            later_s = run.server._parts.driver.now() + FLOOR_WINDOW_S
            monkeypatch.setattr(run.server._parts.pool, "_now", lambda: later_s)
            for transfer in (t1, t2):
                assert (await transfer.hear("push_result")).rejection == Rejection.TOO_SLOW.value
            await t3.hear("push_granted")
            await t3.send_chunks(w3.payload())
            await t3.say(push_done=pb.PushDone(lease=leases[2].lease))
            assert (await t3.hear("push_result")).verdict == pb.PUSH_VERDICT_ACCEPTED
            # What they held is planned again, and whoever comes late with it is not heard.
            again = await w3.hear("lease")
            assert task_ids(again.tasks)[0] in [task for lease in leases[:2] for task in task_ids(lease.tasks)]
            await t1.send_chunks(w1.payload())
            await t1.say(push_done=pb.PushDone(lease=leases[0].lease))
            await t1.say(push=w1.manifest(leases[0]))
            assert (await t1.hear("push_result")).rejection == Rejection.STALE.value


@pytest.mark.parametrize(
    "first",
    [
        pb.TransferUp(attach=pb.Attach(protocol_version=9, incarnation="0" * 32)).SerializeToString(),
        pb.TransferUp(attach=pb.Attach(protocol_version=PROTOCOL_VERSION, incarnation="me")).SerializeToString(),
        pb.TransferUp(pull=pb.PullRequest(version=0)).SerializeToString(),
        frame_chunk(memoryview(b"abc")),
        b"\xff\xff\xff",
    ],
    ids=["another protocol", "no incarnation", "no attach", "a chunk", "no message"],
)
async def test_a_data_stream_begins_with_attach(tmp_path: Path, first: bytes) -> None:
    async with serving(settings(tmp_path)) as run, RawWorker(run.address) as worker:
        transfer = worker.transfer()
        await transfer.send(first)
        assert await transfer.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_misframed_chunk_ends_the_stream_and_not_the_run(tmp_path: Path) -> None:
    async with serving(medium(tmp_path, rounds=1)) as run, RawWorker(run.address, job=MEDIUM) as worker:
        lease = await leased(run, worker)
        async with worker.transfer() as transfer:
            await transfer.say(push=worker.manifest(lease))
            await transfer.hear("push_granted")
            await transfer.send(frame_chunk(memoryview(worker.payload()[:100]))[:-3])
            assert await transfer.code() is grpc.StatusCode.INVALID_ARGUMENT
        async with worker.transfer() as transfer:
            await transfer.push(worker.manifest(lease), worker.payload())
        assert (await run.end()).outcome is Outcome.DONE
