"""A real server and a worker that breaks the rules: it is refused and counted, and training goes on."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from paceline.coordination.effects import Outcome
from paceline.coordination.events import Rejection
from paceline.fingerprint import JobFingerprint
from paceline.protos import coordinator_pb2 as pb
from paceline.protos.framing import PROTOCOL_VERSION, channel_options, crc32c
from tests.server.raw_worker import LIMIT_S, RawWorker, Run, serving, settings, task_ids


async def test_a_worker_that_keeps_the_rules_trains_the_model(tmp_path: Path) -> None:
    async with serving(settings(tmp_path)) as run, RawWorker(run.address) as worker:
        await worker.join()
        lease = await worker.hear("lease")
        assert (lease.version, task_ids(lease.tasks)) == (0, [0, 1])
        assert lease.state == bytes(worker.flat.version_view)
        assert lease.state_crc32c == crc32c(lease.state)
        assert (await worker.push(worker.contribution(lease))).verdict == pb.PUSH_VERDICT_ACCEPTED
        assert (await worker.work()).verdict == pb.PUSH_VERDICT_ACCEPTED
        goodbye = await worker.hear("goodbye")
        assert goodbye.outcome == pb.RUN_OUTCOME_DONE
        await worker.hear_the_end()
        result = await run.end()
    assert result.outcome is Outcome.DONE
    assert result.summary["rounds"] == 2
    assert result.summary["tasks"] == {"planned": 4, "used": 4, "wasted": 0, "replanned": 0}
    assert result.summary["bytes"]["pushed"] == 2 * worker.layout.nbytes
    assert is_file(result.summary["model"])


async def test_the_new_version_is_the_old_one_stepped_by_the_mean_gradient(tmp_path: Path) -> None:
    async with serving(settings(tmp_path)) as run, RawWorker(run.address) as worker:
        await worker.join()
        first = await worker.hear("lease")
        await worker.push(worker.contribution(first, worker.payload(8.0)))
        second = await worker.hear("lease")
        before, after = (np.frombuffer(lease.state, np.float32) for lease in (first, second))
        # SGD, rate 0.01, first step of momentum: the mean over 8 samples of a sum of 8 is 1.
        used = before != 0
        np.testing.assert_allclose(after[used], before[used] - 0.01, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"protocol_version": 7}, pb.REFUSAL_CODE_PROTOCOL, ["7", f"{PROTOCOL_VERSION} on the server"]),
        ({"name": "no spaces"}, pb.REFUSAL_CODE_BAD_HELLO, ["'no spaces'"]),
        ({"name": ""}, pb.REFUSAL_CODE_BAD_HELLO, ["''"]),
        ({"incarnation": "xyz"}, pb.REFUSAL_CODE_BAD_HELLO, ["'xyz'", "32"]),
    ],
)
async def test_a_bad_hello_is_refused_with_what_is_wrong(
    tmp_path: Path, changes: dict[str, Any], code: pb.RefusalCode, words: list[str]
) -> None:
    async with serving(settings(tmp_path)) as run, RawWorker(run.address) as worker:
        await worker.say(hello=worker.hello(**changes))
        refused = await worker.hear("refused")
        assert refused.code == code
        assert all(word in refused.reason for word in words), refused.reason
        await worker.hear_the_end()


@pytest.mark.parametrize(
    "message",
    [
        {"heartbeat": pb.Heartbeat(micro_steps=1)},
        {},
    ],
)
async def test_a_session_begins_with_hello(tmp_path: Path, message: dict[str, Any]) -> None:
    async with serving(settings(tmp_path)) as run, RawWorker(run.address) as worker:
        await worker.say(**message)
        assert (await worker.hear("refused")).code == pb.REFUSAL_CODE_BAD_HELLO


async def test_a_job_that_differs_is_refused_with_the_difference(tmp_path: Path) -> None:
    async with serving(settings(tmp_path)) as run, RawWorker(run.address) as worker:
        await worker.say(hello=worker.hello())
        welcome = await worker.hear("welcome")
        other = dataclasses.replace(JobFingerprint.from_json(welcome.job_fingerprint_json), n_samples=7)
        await worker.say(ready=pb.Ready(job_fingerprint_json=other.to_json()))
        refused = await worker.hear("refused")
        assert refused.code == pb.REFUSAL_CODE_JOB_DIFFERS
        assert "1024 samples on the server, 7 here" in refused.reason


async def test_ready_without_a_fingerprint_is_refused(tmp_path: Path) -> None:
    async with serving(settings(tmp_path)) as run, RawWorker(run.address) as worker:
        await worker.say(hello=worker.hello())
        await worker.hear("welcome")
        await worker.say(ready=pb.Ready())
        assert (await worker.hear("refused")).code == pb.REFUSAL_CODE_BAD_HELLO


async def test_a_name_in_use_is_refused_and_a_drained_one_is_free(tmp_path: Path) -> None:
    async with (
        serving(settings(tmp_path, min_workers=2)) as run,
        RawWorker(run.address) as first,
        RawWorker(run.address) as second,
        RawWorker(run.address) as third,
    ):
        await first.join()
        await second.say(hello=second.hello())
        await first.hear("are_you_there")
        await first.say(here=pb.Here())
        refused = await second.hear("refused")
        assert refused.code == pb.REFUSAL_CODE_NAME_IN_USE
        assert "test pid 1" in refused.reason
        await first.say(drain=pb.Drain())
        assert (await first.hear("goodbye")).outcome == pb.RUN_OUTCOME_DRAINED
        await third.join()


Bad = Callable[[RawWorker, pb.Lease], pb.Contribution]

BAD_CONTRIBUTIONS: dict[str, tuple[Rejection, Bad]] = {
    "announces another size": (Rejection.WRONG_SIZE, lambda w, t: w.contribution(t, total_bytes=w.layout.nbytes - 4)),
    "announces a segment of another size": (
        Rejection.WRONG_SIZE,
        lambda w, t: w.contribution(t, segments=[pb.SegmentInfo(name="trainable.float32", dtype="float32", bytes=4)]),
    ),
    "announces no segments": (Rejection.WRONG_SIZE, lambda w, t: w.contribution(t, segments=[])),
    "announces another dtype": (
        Rejection.WRONG_DTYPE,
        lambda w, t: w.contribution(
            t, segments=[pb.SegmentInfo(name="trainable.float32", dtype="float64", bytes=w.layout.nbytes)]
        ),
    ),
    "announces a codec that is none": (Rejection.WRONG_DTYPE, lambda w, t: w.contribution(t, codec=9)),
    "is too short": (Rejection.TRUNCATED, lambda w, t: w.contribution(t, w.payload()[:-4])),
    "is too long": (Rejection.WRONG_SIZE, lambda w, t: w.contribution(t, w.payload() + bytes(4))),
    "is of another version": (Rejection.WRONG_VERSION, lambda w, t: w.contribution(t, version=t.version + 1)),
    "has other tasks": (Rejection.WRONG_TASKS, lambda w, t: w.contribution(t, tasks=[900, 901])),
    "has a task twice": (Rejection.WRONG_TASKS, lambda w, t: w.contribution(t, tasks=[task_ids(t.tasks)[0]] * 2)),
    "has no tasks": (
        Rejection.WRONG_TASKS,
        lambda w, t: w.contribution(t, tasks=[], seconds=[], loss_sums=[], samples=[]),
    ),
    "has rows of two lengths": (Rejection.WRONG_TASKS, lambda w, t: w.contribution(t, seconds=[0.1])),
    "has seconds that are none": (Rejection.NON_FINITE, lambda w, t: w.contribution(t, seconds=[0.1, float("nan")])),
    "is not finite": (Rejection.NON_FINITE, lambda w, t: w.contribution(t, w.payload(float("inf")))),
    "does not match its checksum": (
        Rejection.CHECKSUM,
        lambda w, t: pb.Contribution(manifest=w.manifest(t), payload=w.payload(), payload_crc32c=1),
    ),
    "is for an unknown lease": (Rejection.UNKNOWN_LEASE, lambda w, t: w.contribution(t, lease=t.lease + 1000)),
    "is for another's lease": (Rejection.STALE, lambda w, t: w.contribution(t, incarnation="0" * 32)),
}


@pytest.mark.parametrize("kind", BAD_CONTRIBUTIONS)
async def test_a_bad_contribution_is_refused_and_counted_and_training_goes_on(tmp_path: Path, kind: str) -> None:
    rejection, make = BAD_CONTRIBUTIONS[kind]
    async with (
        serving(settings(tmp_path, rounds=1)) as run,
        RawWorker(run.address) as worker,
        RawWorker(run.address, "w2") as honest,
    ):
        await worker.join()
        lease = await worker.hear("lease")
        result = await worker.push(make(worker, lease))
        assert result.verdict == pb.PUSH_VERDICT_REFUSED
        assert result.rejection == rejection.value
        assert result.message
        assert counted(run) == {rejection: 1}
        if rejection in (Rejection.UNKNOWN_LEASE, Rejection.STALE):
            await worker.push(worker.contribution(lease))
        else:
            await honest.join()
            again: list[int] = []
            while again != task_ids(lease.tasks):
                given = await honest.hear("lease")
                again += task_ids(given.tasks)
                await honest.push(honest.contribution(given))
        result_of_run = await run.end()
        assert (result_of_run.outcome, result_of_run.summary["tasks"]["used"]) == (Outcome.DONE, 2)


def is_file(path: str) -> bool:
    """Tell whether there is a file; apart, since a coroutine should not ask the disk."""
    return Path(path).is_file()


def counted(run: Run) -> dict[Rejection, int]:
    """Give the rejections that were counted."""
    rejected = run.server._parts.books.totals.rejected
    return {rejection: count for rejection, count in rejected.items() if count}


async def test_a_contribution_that_is_pushed_twice_counts_once(tmp_path: Path) -> None:
    async with serving(settings(tmp_path)) as run, RawWorker(run.address) as worker:
        await worker.join()
        first = worker.contribution(await worker.hear("lease"))
        assert (await worker.push(first)).verdict == pb.PUSH_VERDICT_ACCEPTED
        assert (await worker.push(first)).verdict == pb.PUSH_VERDICT_ACCEPTED
        assert (await worker.push(first)).verdict == pb.PUSH_VERDICT_ACCEPTED
        assert (await run.status()).version == 1


async def test_the_last_report_may_carry_the_contribution(tmp_path: Path) -> None:
    async with serving(settings(tmp_path, rounds=1)) as run, RawWorker(run.address) as worker:
        await worker.join()
        lease = await worker.hear("lease")
        numbers: dict[str, Any] = {"outcome": pb.TASK_OUTCOME_DONE, "seconds": 2**-12, "loss_sum": 4.0, "samples": 4}
        first, last = task_ids(lease.tasks)
        await worker.say(report=pb.Report(lease=lease.lease, task=first, **numbers))
        contribution = worker.contribution(lease, seconds=[2**-12, 2**-12])
        await worker.say(report=pb.Report(lease=lease.lease, task=last, contribution=contribution, **numbers))
        assert (await worker.hear("push_result")).verdict == pb.PUSH_VERDICT_ACCEPTED
        result = await run.end()
    assert result.summary["workers"][0]["busy_s"] == 2**-11
    assert result.summary["loss"] == [1.0]


async def test_the_answer_to_an_accepted_push_travels_with_the_next_lease(tmp_path: Path) -> None:
    async with serving(settings(tmp_path, rounds=2)) as run, RawWorker(run.address) as worker:
        await worker.join()
        first = await worker.hear("lease")
        await worker.say(contribution=worker.contribution(first))
        message = await worker.receive()
        assert message.WhichOneof("message") == "lease"
        assert [(result.lease, result.verdict) for result in message.accepted] == [
            (first.lease, pb.PUSH_VERDICT_ACCEPTED)
        ]
        await worker.push(worker.contribution(message.lease))
        await run.end()


@pytest.mark.parametrize(
    "report",
    [
        {"outcome": pb.TASK_OUTCOME_DONE, "seconds": float("nan")},
        {"outcome": pb.TASK_OUTCOME_DONE, "seconds": -1.0},
        {"outcome": pb.TASK_OUTCOME_DONE, "loss_sum": float("inf")},
        {"outcome": pb.TASK_OUTCOME_UNSPECIFIED},
    ],
)
async def test_a_report_without_meaning_ends_the_session_and_not_the_run(
    tmp_path: Path, report: dict[str, Any]
) -> None:
    async with (
        serving(settings(tmp_path, rounds=1, lost_after_s=0.0)) as run,
        RawWorker(run.address) as worker,
        RawWorker(run.address, "w2") as honest,
    ):
        await worker.join()
        lease = await worker.hear("lease")
        await worker.say(report=pb.Report(lease=lease.lease, task=0, **report))
        assert (await worker.hear("refused")).code == pb.REFUSAL_CODE_BAD_HELLO
        await honest.join()
        await honest.work()
        assert (await run.end()).outcome is Outcome.DONE


async def test_a_task_that_fails_everywhere_ends_the_run_with_its_story(tmp_path: Path) -> None:
    async with (
        serving(settings(tmp_path, tasks=1)) as run,
        RawWorker(run.address) as first,
        RawWorker(run.address, "w2") as second,
    ):
        failed: dict[str, Any] = {
            "outcome": pb.TASK_OUTCOME_EXCEPTION,
            "message": "ValueError: no",
            "traceback": "Traceback: no",
        }
        await first.join()
        lease = await first.hear("lease")
        await second.join()
        async with asyncio.timeout(LIMIT_S):
            while [worker.state for worker in (await run.status()).workers] != ["busy", "free"]:
                pass
        await first.say(report=pb.Report(lease=lease.lease, task=0, **failed))
        await first.say(lease_ended=pb.LeaseEnded(lease=lease.lease))
        lease = await second.hear("lease")
        assert task_ids(lease.tasks) == [0]
        await second.say(report=pb.Report(lease=lease.lease, task=0, **failed))
        goodbye = await second.hear("goodbye")
        assert goodbye.outcome == pb.RUN_OUTCOME_FAILED
        result = await run.end()
    assert result.outcome is Outcome.FAILED
    assert "task 0 failed on w1, w2: ValueError: no" in result.reason
    assert "(samples " in result.reason
    assert result.detail == "Traceback: no"
    assert is_file(result.summary["model"])


@pytest.mark.parametrize("grows", [True, False])
async def test_heartbeats_keep_a_worker_and_only_micro_steps_are_progress(tmp_path: Path, grows: bool) -> None:
    patient = settings(tmp_path, progress_s=1.5, silent_after_s=60.0)
    async with serving(patient) as run, RawWorker(run.address) as worker:
        await worker.join()
        await worker.work()
        await worker.hear("lease")
        beating = True

        async def beat() -> None:
            steps = 1
            while beating:
                steps += grows
                await worker.say(heartbeat=pb.Heartbeat(micro_steps=steps))
                await asyncio.sleep(0.05)

        beats = asyncio.create_task(beat())
        try:
            async with asyncio.timeout(3.5 if grows else LIMIT_S):
                await worker.hear_the_end()
            lost = True
        except TimeoutError:
            lost = False
        beating = False
        await asyncio.gather(beats, return_exceptions=True)
        assert lost is not grows


async def test_a_broken_session_is_resumed_with_its_lease(tmp_path: Path) -> None:
    async with serving(settings(tmp_path, rounds=1, lost_after_s=30.0)) as run, RawWorker(run.address) as worker:
        await worker.join()
        lease = await worker.hear("lease")
        worker.drop_session()
        worker.open_session()
        await worker.say(hello=worker.hello(leases=[lease.lease]))
        assert (await worker.hear("welcome")).resumed
        again = await worker.hear("lease")
        assert (again.lease, task_ids(again.tasks)) == (lease.lease, task_ids(lease.tasks))
        assert again.state == lease.state
        assert (await worker.push(worker.contribution(lease))).verdict == pb.PUSH_VERDICT_ACCEPTED
        assert (await run.end()).outcome is Outcome.DONE


async def test_a_version_is_sent_once_per_session(tmp_path: Path) -> None:
    async with serving(settings(tmp_path)) as run, RawWorker(run.address) as worker:
        await worker.join()
        lease = await worker.hear("lease")
        assert lease.state
        await worker.say(version_gone=pb.VersionGone(lease=lease.lease))
        again = await worker.hear("lease")
        assert (again.version, again.state) == (0, b"")
        await worker.push(worker.contribution(again))
        assert (await worker.hear("lease")).state


async def test_a_worker_that_was_away_at_the_end_hears_of_it_when_it_comes_back(tmp_path: Path) -> None:
    async with serving(settings(tmp_path, lost_after_s=30.0)) as run, RawWorker(run.address) as worker:
        await worker.join()
        await worker.hear("lease")
        worker.drop_session()
        async with asyncio.timeout(LIMIT_S):
            while (await run.status()).workers[0].state != "away":
                pass
        run.server.stop("enough")
        await asyncio.wait_for(run.over.wait(), LIMIT_S)
        worker.open_session()
        await worker.say(hello=worker.hello())
        refused = await worker.hear("refused")
        assert (refused.code, "enough" in refused.reason) == (pb.REFUSAL_CODE_RUN_OVER, True)
        result = await run.end()
    assert result.outcome is Outcome.STOPPED
    assert is_file(result.summary["model"])


async def test_status_says_what_is_waited_for_and_health_says_serving(tmp_path: Path) -> None:
    async with serving(settings(tmp_path)) as run:
        status = await run.status()
        assert (status.state, status.rounds, status.policy) == ("waiting", 2, "uniform")
        assert "0 of 1" in status.situation
        async with grpc.aio.insecure_channel(run.address, options=channel_options()) as channel:
            answer = await health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service="paceline.v1.Coordinator"), timeout=LIMIT_S
            )
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_reflection_lists_the_service_when_asked_for(tmp_path: Path) -> None:
    reflection_pb2 = pytest.importorskip("grpc_reflection.v1alpha.reflection_pb2")
    stubs = pytest.importorskip("grpc_reflection.v1alpha.reflection_pb2_grpc")
    async with serving(settings(tmp_path, reflection=True)) as run:
        async with grpc.aio.insecure_channel(run.address, options=channel_options()) as channel:
            call = stubs.ServerReflectionStub(channel).ServerReflectionInfo(timeout=LIMIT_S)
            await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
            answer = await call.read()
            await call.done_writing()
        names = {service.name for service in answer.list_services_response.service}
        assert "paceline.v1.Coordinator" in names


async def test_settings_and_constants_reach_the_worker(tmp_path: Path) -> None:
    async with serving(settings(tmp_path, seed=11, sums="exact")) as run, RawWorker(run.address) as worker:
        await worker.join()
        shared = json.loads(worker.welcome.settings_json)
        assert (shared["seed"], shared["sums"], shared["micro_batch"]) == (11, "exact", 4)
        assert worker.welcome.version_bytes == worker.flat.layout.version_nbytes
        assert worker.welcome.constants_bytes == 0
