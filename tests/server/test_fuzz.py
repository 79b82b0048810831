"""Mutated messages of every kind, by a seed: no crash, no leak, and no bit of the model is another for it.

A case is its seed: `FUZZ_SEED=n pytest tests/server/test_fuzz.py` does that one again, first.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message

from paceline.coordination.effects import Outcome
from paceline.protos import coordinator_pb2 as pb
from paceline.protos.framing import PROTOCOL_VERSION, frame_chunk
from tests.server.raw_worker import RawWorker, Run, serving, settings, task_ids
from tests.server.test_hostile import ROUNDS, TASKS, finish, honest_work, resident_mb, undisturbed

SESSION = "/paceline.v1.Coordinator/Session"
TRANSFER = "/paceline.v1.Coordinator/Transfer"
# How many mutated messages one stream is sent at most; most end it sooner.
PER_STREAM = 40
# A hostile client has more connections than one.
STREAMS_PER_CHANNEL = 50
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
NUMBERS: tuple[Any, ...] = (0, 1, 2, 7, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**63 - 1, 2**63, 2**64 - 1, -1, -(2**31))
FLOATS = (0.0, -0.0, 1e-320, 0.001, 1e300, -1.0, float("nan"), float("inf"), float("-inf"))
TEXTS = ("", "x", "w1", "honest", "\0", "ä\u202e\U0001f600", "../..", "{", "[" * 3000, "A" * 5000, "%s%n", "' OR 1=1")


class Mutator:
    """Makes wrong messages of right ones."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)

    def mutated(self, message: Message) -> bytes:
        """Change some of its fields, or of its bytes, or both, or nothing."""
        copy = type(message)()
        copy.CopyFrom(message)
        if self.chance.random() < 0.8:
            for _ in range(self.chance.randint(1, 3)):
                self._change_field(copy)
        raw = copy.SerializeToString()
        return self.bytes_of(raw) if self.chance.random() < 0.3 else raw

    def bytes_of(self, raw: bytes) -> bytes:
        """Flip, drop, double or add bytes."""
        data = bytearray(raw)
        for _ in range(self.chance.randint(1, 4)):
            place = self.chance.randrange(len(data) + 1)
            match self.chance.randrange(4):
                case 0 if data:
                    data[min(place, len(data) - 1)] ^= 1 << self.chance.randrange(8)
                case 1:
                    del data[place : place + self.chance.randint(1, 9)]
                case 2:
                    data[place:place] = data[place : place + self.chance.randint(1, 30)]
                case _:
                    data[place:place] = self.chance.randbytes(self.chance.randint(1, 12))
        return bytes(data)

    def _change_field(self, message: Message) -> None:
        if not message.DESCRIPTOR.fields:
            return
        field: Any = self.chance.choice(message.DESCRIPTOR.fields)
        if field.type == field.TYPE_MESSAGE:
            inner = getattr(message, field.name)
            if field.is_repeated:
                if inner and self.chance.random() < 0.5:
                    self._change_field(self.chance.choice(inner))
                else:
                    for _ in range(self.chance.choice((1, 3, 200))):
                        self._change_field(inner.add())
            else:
                self._change_field(inner)
                inner.SetInParent()
            return
        with contextlib.suppress(ValueError, TypeError):  # a value that the field cannot hold
            if field.is_repeated:
                getattr(message, field.name).extend(self._value(field) for _ in range(self.chance.choice((1, 2, 500))))
            else:
                setattr(message, field.name, self._value(field))

    def _value(self, field: Any) -> Any:
        if field.type == field.TYPE_STRING:
            return self.chance.choice(TEXTS)
        if field.type == field.TYPE_BYTES:
            return self.chance.randbytes(self.chance.choice((0, 1, 4, 100, 3000)))
        if field.type in (field.TYPE_DOUBLE, field.TYPE_FLOAT):
            return self.chance.choice(FLOATS)
        if field.type == field.TYPE_BOOL:
            return self.chance.random() < 0.5
        return self.chance.choice(NUMBERS)


def said(worker: RawWorker, lease: pb.Lease) -> list[pb.WorkerMessage]:
    """Give a right message of every kind, about a lease that was never given to the fuzzer."""
    numbers: dict[str, Any] = {"outcome": pb.TASK_OUTCOME_DONE, "seconds": 0.001, "loss_sum": 4.0, "samples": 4}
    contribution = worker.contribution(lease)
    task = task_ids(lease.tasks)[0]
    return [
        pb.WorkerMessage(hello=worker.hello()),
        pb.WorkerMessage(ready=pb.Ready(job_fingerprint_json='{"job": "Tiny", "tensors": [], "samples": []}')),
        pb.WorkerMessage(drain=pb.Drain()),
        pb.WorkerMessage(report=pb.Report(lease=lease.lease, task=task, **numbers)),
        pb.WorkerMessage(report=pb.Report(lease=lease.lease, task=task, contribution=contribution, **numbers)),
        pb.WorkerMessage(heartbeat=pb.Heartbeat(micro_steps=3)),
        pb.WorkerMessage(lease_ended=pb.LeaseEnded(lease=lease.lease, wasted_s=0.1)),
        pb.WorkerMessage(here=pb.Here()),
        pb.WorkerMessage(version_gone=pb.VersionGone(lease=lease.lease)),
        pb.WorkerMessage(contribution=contribution),
    ]


def sent(worker: RawWorker, lease: pb.Lease) -> list[Message | bytes]:
    """The same of the data stream."""
    return [
        pb.TransferUp(attach=pb.Attach(protocol_version=PROTOCOL_VERSION, incarnation=worker.incarnation)),
        pb.TransferUp(pull=pb.PullRequest(version=0)),
        pb.TransferUp(pull=pb.PullRequest(constants=True)),
        pb.TransferUp(push=worker.manifest(lease)),
        pb.TransferUp(push_done=pb.PushDone(lease=lease.lease)),
        frame_chunk(memoryview(worker.payload(1.0))),
    ]


class Fuzzer:
    """A client that is never let in as a worker: its job is another one."""

    def __init__(self, run: Run, seed: int) -> None:
        self.messages = 0
        self.streams: Counter[str] = Counter()
        self._run = run
        self._mutator = Mutator(seed)
        self._chance = self._mutator.chance

    async def __aenter__(self) -> Fuzzer:
        self._worker = RawWorker(self._run.address, "fuzzer")
        self._channel = grpc.aio.insecure_channel(self._run.address, options=OWN_CONNECTION)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._worker.__aexit__()
        await self._channel.close()

    async def go(self, messages: int) -> None:
        """Send so many."""
        while self.messages < messages:
            if self.streams.total() % STREAMS_PER_CHANNEL == 0:
                await self._channel.close()
                self._channel = grpc.aio.insecure_channel(self._run.address, options=OWN_CONNECTION)
            if self._chance.random() < 0.6:
                await self._stream("session", SESSION)
            else:
                await self._stream("transfer", TRANSFER)

    async def _stream(self, kind: str, method: str) -> None:
        self.streams[kind] += 1
        # The first leases of this life: the honest worker's, present and past.
        lease = pb.Lease(lease=(1 << 40) + self._chance.randrange(40), version=self._chance.randrange(3))
        lease.tasks.add(first=self._chance.randrange(8), count=2)
        right = said(self._worker, lease) if kind == "session" else sent(self._worker, lease)
        call: Any = self._channel.stream_stream(method)()
        reader = asyncio.create_task(_read_on(call))
        try:
            async with asyncio.timeout(20):
                if self._chance.random() < 0.8:
                    first = right[0]
                    assert isinstance(first, Message)
                    await call.write(first.SerializeToString())
                for _ in range(self._chance.randint(1, PER_STREAM)):
                    # The first ones end a session, right or wrong, once it is open.
                    message = self._chance.choice(right if self._chance.random() < 0.1 else right[-7:])
                    mutate = self._mutator.bytes_of if isinstance(message, bytes) else self._mutator.mutated
                    self.messages += 1
                    await call.write(mutate(message))  # type: ignore[arg-type]  # each takes its kind
                await call.done_writing()
                # Until the server has read it all, or has ended the stream.
                await reader
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass  # the server has ended the stream: the right answer to most of it
        finally:
            call.cancel()
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)


async def _read_on(call: Any) -> None:
    with contextlib.suppress(grpc.aio.AioRpcError):
        while await call.read() is not grpc.aio.EOF:
            pass


def deep(run: Any, messages: int) -> bool:
    """Tell whether one message in a hundred came as far as the coordinator, and was rejected by it."""
    rejected: dict[Any, int] = run.server._parts.books.totals.rejected
    return sum(rejected.values()) > messages // 100


async def fuzzed(tmp_path: Path, seed: int, messages: int) -> None:
    """Fuzz a run that an honest worker is in; it must go on, and end with the bits of one that was left alone."""
    expected = await undisturbed(tmp_path / f"alone-{seed}")
    # The honest worker says nothing until the fuzzer is done.
    told = settings(tmp_path / f"run-{seed}", rounds=ROUNDS, tasks=TASKS, silent_after_s=900.0)
    async with serving(told) as run, RawWorker(run.address, "honest") as honest:
        await honest.join()
        async with Fuzzer(run, seed) as fuzzer:
            await fuzzer.go(messages // 4)
            warm_mb = resident_mb()
            await fuzzer.go(messages)
            # How far messages come depends on how fast the server ends their streams: fewer on a busy machine.
            while not deep(run, messages) and fuzzer.messages < 3 * messages:
                await fuzzer.go(fuzzer.messages + messages // 4)
            grown_mb = resident_mb() - warm_mb
        driver = run.server._parts.driver
        assert driver.bug is None, driver.bug
        assert not run.over.is_set()
        assert (await run.status()).version == 0
        driver._machine.validate()
        # Many came as far as the coordinator, on both kinds of stream.
        assert deep(run, messages)
        assert min(fuzzer.streams.values()) > messages // 400
        assert grown_mb < 24.0
        assert await finish(run, asyncio.create_task(honest_work(honest))) == expected


SEEDS = [int(os.environ["FUZZ_SEED"])] if "FUZZ_SEED" in os.environ else [1]


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
@pytest.mark.parametrize("seed", SEEDS)
async def test_two_thousand_mutated_messages_change_nothing(tmp_path: Path, seed: int) -> None:
    await fuzzed(tmp_path, seed, 2_000)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
@pytest.mark.parametrize("seed", range(2, 7))
async def test_a_hundred_thousand_mutated_messages_change_nothing(tmp_path: Path, seed: int) -> None:
    await fuzzed(tmp_path, seed, 20_000)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_worker_whose_messages_are_mutated_costs_the_run_nothing_but_time(tmp_path: Path, seed: int) -> None:
    """This one is let in and has leases: what it gets right is used, the run ends all the same."""
    mutator = Mutator(seed)
    told = settings(tmp_path, rounds=ROUNDS, tasks=TASKS, min_workers=2, strikes=1)
    async with serving(told) as run, RawWorker(run.address, "honest") as honest:
        await honest.join()
        work = asyncio.create_task(honest_work(honest))
        async with RawWorker(run.address, "mutant") as mutant:
            await mutant.join()
            lease = await mutant.hear("lease")
            raw = mutant._channel.stream_stream(SESSION, _as_it_is, pb.ServerMessage.FromString)
            for _ in range(60):
                mutant.drop_session()
                mutant.stream = raw()
                with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError, AssertionError):
                    await mutant.stream.write(
                        pb.WorkerMessage(hello=mutant.hello(leases=[lease.lease])).SerializeToString()
                    )
                    for message in said(mutant, lease)[2:]:
                        await mutant.stream.write(mutator.mutated(message))
            mutant.drop_session()
        result = await run.end()
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
    assert run.server._parts.driver.bug is None
    assert (result.outcome, result.summary["rounds"]) == (Outcome.DONE, ROUNDS)


_as_it_is: Callable[[bytes], bytes] = bytes
