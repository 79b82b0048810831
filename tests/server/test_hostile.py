"""A hostile client beside an honest worker: whatever it says is refused with its reason, and changes no bit."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from paceline.coordination.effects import Outcome
from paceline.coordination.events import Rejection
from paceline.protos import coordinator_pb2 as pb
from tests.server.raw_worker import RawWorker, Run, serving, settings, task_ids

ROUNDS, TASKS = 12, 4
BAD = frozenset(rejection.value for rejection in Rejection)


async def honest_work(worker: RawWorker) -> None:
    """Do every lease; what is pushed depends on the number of its tasks alone, so any split gives the same sum."""
    while True:
        lease = await worker.hear("lease")
        await worker.push(worker.contribution(lease, worker.payload(float(len(task_ids(lease.tasks))))))


@contextlib.asynccontextmanager
async def beside_an_honest_worker(tmp_path: Path, **changes: Any) -> AsyncIterator[tuple[Run, asyncio.Task[None]]]:
    """Serve a run that an honest worker is in; a further one may come."""
    told = settings(tmp_path, **{"rounds": ROUNDS, "tasks": TASKS, **changes})
    async with serving(told) as run, RawWorker(run.address, "honest") as honest:
        await honest.join()
        yield run, asyncio.create_task(honest_work(honest))


async def finish(run: Run, work: asyncio.Task[None]) -> str:
    """See the run end well, and give the fingerprint of its model."""
    result = await run.end()
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError, AssertionError):  # its stream ended with the run
        await work
    assert (result.outcome, result.summary["rounds"]) == (Outcome.DONE, ROUNDS)
    assert result.summary["tasks"]["used"] == ROUNDS * TASKS
    return str(result.summary["fingerprint"])


async def undisturbed(tmp_path: Path) -> str:
    """Give the fingerprint of a run that the honest worker did alone."""
    async with beside_an_honest_worker(tmp_path) as (run, work):
        return await finish(run, work)


def attacks(worker: RawWorker, lease: pb.Lease) -> dict[str, pb.Contribution]:
    """Make contributions to a lease that no server should take."""
    count = len(task_ids(lease.tasks))
    data = worker.payload(1e6)
    flipped = bytes([data[0] ^ 1]) + data[1:]
    whole = worker.contribution(lease, data)
    return {
        "bits flipped": pb.Contribution(manifest=whole.manifest, payload=flipped, payload_crc32c=whole.payload_crc32c),
        "cut off": worker.contribution(lease, data[:-4]),
        "twice as long": worker.contribution(lease, data + data),
        "a task twice": worker.contribution(lease, data, tasks=[task_ids(lease.tasks)[0]] * count),
        "tasks of the future": worker.contribution(lease, data, tasks=range(10**9, 10**9 + count)),
        "a hundred thousand tasks": worker.contribution(
            lease, data, tasks=range(10**5), seconds=[0.0] * 10**5, loss_sums=[0.0] * 10**5, samples=[1] * 10**5
        ),
        "negative seconds": worker.contribution(lease, data, seconds=[-1.0] * count),
        "endless seconds": worker.contribution(lease, data, seconds=[float("inf")] * count),
        "a loss that is none": worker.contribution(lease, data, loss_sums=[float("nan")] * count),
        "samples to outweigh all others": worker.contribution(lease, data, samples=[2**60] * count),
        "another version": worker.contribution(lease, data, version=lease.version + 7),
        "infinite": worker.contribution(lease, worker.payload(float("inf"))),
        "a segment of a long name": worker.contribution(
            lease, data, segments=[pb.SegmentInfo(name="x" * 2**19, dtype="float32", bytes=4)]
        ),
        "a dtype of a long name": worker.contribution(
            lease,
            data,
            segments=[pb.SegmentInfo(name=s.name, dtype="y" * 2**18, bytes=s.nbytes) for s in worker.layout.segments],
        ),
    }


ATTACKS = (
    "bits flipped", "cut off", "twice as long", "a task twice", "tasks of the future", "a hundred thousand tasks",
    "negative seconds", "endless seconds", "a loss that is none", "samples to outweigh all others", "another version",
    "infinite", "a segment of a long name", "a dtype of a long name",
)  # fmt: skip


@pytest.mark.parametrize("kind", ATTACKS)
async def test_contribution_that_no_server_should_take_changes_no_bit(tmp_path: Path, kind: str) -> None:
    expected = await undisturbed(tmp_path / "alone")
    async with (
        serving(settings(tmp_path / "run", rounds=ROUNDS, tasks=TASKS, min_workers=2)) as run,
        RawWorker(run.address, "honest") as honest,
        RawWorker(run.address, "hostile") as hostile,
    ):
        await honest.join()
        await hostile.join()
        lease = await hostile.hear("lease")
        made = attacks(hostile, lease)
        assert tuple(made) == ATTACKS
        result = await hostile.push(made[kind])
        assert result.verdict == pb.PUSH_VERDICT_REFUSED
        assert result.rejection in BAD
        assert 0 < len(result.message) < 2000
        hostile.drop_session()
        assert await finish(run, asyncio.create_task(honest_work(honest))) == expected


async def test_forged_and_old_leases_are_told_apart_and_change_no_bit(tmp_path: Path) -> None:
    expected = await undisturbed(tmp_path / "alone")
    async with beside_an_honest_worker(tmp_path / "run") as (run, work), RawWorker(run.address, "hostile") as hostile:
        await hostile.join()
        lease = await hostile.hear("lease")
        data = hostile.payload(float(len(task_ids(lease.tasks))))
        assert (await hostile.push(hostile.contribution(lease, data))).verdict == pb.PUSH_VERDICT_ACCEPTED
        poison = hostile.contribution(lease, hostile.payload(1e6))
        # Replayed by its holder: known, acknowledged, not added again.
        assert (await hostile.push(poison)).verdict == pb.PUSH_VERDICT_ACCEPTED
        for changes, rejection in (
            ({"incarnation": secrets.token_hex(16)}, Rejection.STALE),  # replayed by somebody else
            ({"lease": lease.lease + 10_000}, Rejection.UNKNOWN_LEASE),
            ({"lease": 0}, Rejection.UNKNOWN_LEASE),
            ({"lease": 2**63}, Rejection.UNKNOWN_LEASE),
            ({"lease": (99 << 40) + 1}, Rejection.UNKNOWN_LEASE),  # of a life that is to come
        ):
            result = await hostile.push(hostile.contribution(lease, hostile.payload(1e6), **changes))
            assert (result.verdict, result.rejection) == (pb.PUSH_VERDICT_REFUSED, rejection.value), changes
        hostile.drop_session()
        assert await finish(run, work) == expected


async def test_name_is_not_taken_over_while_its_holder_answers(tmp_path: Path) -> None:
    expected = await undisturbed(tmp_path / "alone")
    async with (
        serving(settings(tmp_path / "run", rounds=ROUNDS, tasks=TASKS)) as run,
        RawWorker(run.address, "honest") as honest,
        RawWorker(run.address, "honest") as thief,
    ):
        await honest.join()
        await thief.say(hello=thief.hello())
        await honest.hear("are_you_there")
        await honest.say(here=pb.Here())
        assert (await thief.hear("refused")).code == pb.REFUSAL_CODE_NAME_IN_USE
        assert await finish(run, asyncio.create_task(honest_work(honest))) == expected


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "n" * 65),
        ("name", "w 1"),
        ("incarnation", "a" * 33),
        ("incarnation", "../../etc/passwd"),
        ("leases", range(10_000)),
    ],
)
async def test_field_of_a_hello_that_is_too_large_is_named(tmp_path: Path, field: str, value: Any) -> None:
    async with serving(settings(tmp_path)) as run, RawWorker(run.address) as worker:
        await worker.say(hello=worker.hello(**{field: value}))
        refused = await worker.hear("refused")
        assert field in refused.reason
        assert len(refused.reason) < 400
        assert not (await run.status()).workers


async def test_long_words_of_a_hello_are_cut(tmp_path: Path) -> None:
    async with serving(settings(tmp_path)) as run, RawWorker(run.address) as worker:
        await worker.join(host="h" * 20_000, device="d\n" * 10_000, package_version="v" * 20_000)
        await worker.hear("lease")
        (shown,) = (await run.status()).workers
        assert len(shown.address) < 300
        assert len(shown.device) < 300
        assert "\n" not in shown.device


async def test_fingerprint_of_a_job_that_is_too_long_is_refused(tmp_path: Path) -> None:
    async with serving(settings(tmp_path)) as run, RawWorker(run.address) as worker:
        await worker.say(hello=worker.hello())
        await worker.hear("welcome")
        await worker.say(ready=pb.Ready(job_fingerprint_json="[" * 500_000))
        assert len((await worker.hear("refused")).reason) < 400


def resident_mb() -> float:
    """Give the memory of this process, server and clients alike."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
async def test_two_thousand_attacks_leave_nothing_behind(tmp_path: Path) -> None:
    async with (
        beside_an_honest_worker(tmp_path, rounds=10**6) as (run, work),
        RawWorker(run.address, "hostile") as hostile,
    ):
        await hostile.join()
        lease = await hostile.hear("lease")
        poison = hostile.contribution(lease, hostile.payload(1e6), lease=lease.lease + 10_000)
        used_mb = []
        for number in range(2000):
            assert (await hostile.push(poison)).rejection == Rejection.UNKNOWN_LEASE.value
            if number in (500, 1999):
                used_mb.append(resident_mb())
        assert used_mb[1] - used_mb[0] < 8.0, used_mb
        work.cancel()


async def test_names_that_come_and_go_leave_nothing_behind(tmp_path: Path) -> None:
    async with beside_an_honest_worker(tmp_path, rounds=10**6) as (run, work):
        for number in range(100):
            async with RawWorker(run.address, f"passing-{number}") as passing:
                await passing.say(hello=passing.hello())
                await passing.hear("welcome")
                await passing.say(drain=pb.Drain())
                await passing.hear("goodbye")
        assert run.server._parts.sessions._agreed == {
            member.incarnation for member in run.server._parts.driver._machine._state.members.values()
        }
        work.cancel()
