"""What admins can have a real server do, with and without tokens, and what is said to those who may not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import grpc.aio
import pytest

from paceline.access import OPEN, Access
from paceline.certificates import make_certificates
from paceline.coordination.effects import Outcome
from paceline.errors import CheckpointError, RefusedError, UsageError
from paceline.protos import coordinator_pb2 as pb
from paceline.server import asking
from paceline.server.gate import Gate
from paceline.server.operations import Administration, RunOperations
from paceline.tls import read_tls
from paceline.tokens import Role, create_token
from tests.server.raw_worker import LIMIT_S, RawWorker, own_address, serving, settings, task_ids


async def call(question: Callable[..., object], address: str, *given: object, access: Access = OPEN) -> object:
    return await asyncio.to_thread(question, address, *given, LIMIT_S, access)


async def test_stop_ends_the_run_as_stopped_with_its_state_saved(tmp_path: Path) -> None:
    async with serving(settings(tmp_path / "run")) as run, RawWorker(run.address) as worker:
        await worker.join()
        await call(asking.stop, run.address, 0.0)
        assert (await worker.hear("goodbye")).outcome == pb.RUN_OUTCOME_STOPPED
        result = await run.end()
    assert (result.outcome, result.reason) == (Outcome.STOPPED, "stopped by `paceline stop`")
    assert await asyncio.to_thread((tmp_path / "run" / "model.safetensors").is_file)


async def test_stop_lets_the_present_round_close_within_its_grace(tmp_path: Path) -> None:
    async with serving(settings(tmp_path / "run")) as run, RawWorker(run.address) as worker:
        await worker.join()
        lease = await worker.hear("lease")
        await call(asking.stop, run.address, LIMIT_S)
        assert (await worker.push(worker.contribution(lease))).verdict == pb.PUSH_VERDICT_ACCEPTED
        result = await run.end()
    assert (result.outcome, result.summary["rounds"]) == (Outcome.STOPPED, 1)


@pytest.mark.parametrize("grace_s", [-1.0, float("nan"), float("inf"), 1e9])
async def test_a_grace_that_is_none_is_refused_and_nothing_stops(tmp_path: Path, grace_s: float) -> None:
    async with serving(settings(tmp_path / "run")) as run:
        with pytest.raises(UsageError, match="expected 0 to 86400 s"):
            await call(asking.stop, run.address, grace_s)
        assert (await run.status()).state == "waiting"


async def test_drain_lets_one_worker_go_and_the_other_goes_on(tmp_path: Path) -> None:
    async with (
        serving(settings(tmp_path / "run", rounds=1000)) as run,
        RawWorker(run.address, "w1") as w1,
        RawWorker(run.address, "w2") as w2,
    ):
        await w1.join()
        lease = await w1.hear("lease")
        await w2.join()
        await call(asking.drain, run.address, "w1")
        await w1.hear("drain")
        # As a worker does that is told to end: what it has done is pushed, and nothing new comes.
        await w1.say(drain=pb.Drain())
        assert len(task_ids(lease.tasks)) == 2
        assert (await w1.push(w1.contribution(lease))).verdict == pb.PUSH_VERDICT_ACCEPTED
        assert (await w1.hear("goodbye")).outcome == pb.RUN_OUTCOME_DRAINED
        await w1.hear_the_end()
        for _ in range(3):
            assert (await w2.work()).verdict == pb.PUSH_VERDICT_ACCEPTED


@pytest.mark.parametrize(
    ("name", "words"), [("w9", "no worker 'w9' is connected"), ("", "name is ''"), ("a b", "name is 'a b'")]
)
async def test_a_worker_that_is_not_there_cannot_be_drained(tmp_path: Path, name: str, words: str) -> None:
    async with serving(settings(tmp_path / "run")) as run, RawWorker(run.address) as worker:
        await worker.join()
        with pytest.raises(UsageError, match=words):
            await call(asking.drain, run.address, name)
        await worker.hear("lease")


async def test_a_worker_that_was_not_welcomed_yet_cannot_be_drained(tmp_path: Path) -> None:
    async with serving(settings(tmp_path / "run")) as run, RawWorker(run.address):
        with pytest.raises(UsageError, match="no worker 'w1' is connected"):
            await call(asking.drain, run.address, "w1")


async def test_a_paused_worker_gets_nothing_until_it_is_resumed(tmp_path: Path) -> None:
    async with (
        serving(settings(tmp_path / "run", rounds=1000)) as run,
        RawWorker(run.address, "w1") as w1,
        RawWorker(run.address, "w2") as w2,
    ):
        await w1.join()
        lease = await w1.hear("lease")
        await w2.join()
        await call(asking.pause, run.address, "w1", True)
        assert (await w1.push(w1.contribution(lease))).verdict == pb.PUSH_VERDICT_ACCEPTED
        for _ in range(3):
            assert (await w2.work()).verdict == pb.PUSH_VERDICT_ACCEPTED
        states = {worker.name: worker.state for worker in (await run.status()).workers}
        assert states["w1"] == "paused"
        await call(asking.pause, run.address, "w1", False)
        assert (await w2.work()).verdict == pb.PUSH_VERDICT_ACCEPTED
        assert (await w1.work()).verdict == pb.PUSH_VERDICT_ACCEPTED


@pytest.mark.parametrize(
    ("name", "words"), [("w9", "no worker 'w9' was ever here"), ("", "name is ''"), ("a b", "name is 'a b'")]
)
async def test_a_worker_that_was_never_there_cannot_be_paused(tmp_path: Path, name: str, words: str) -> None:
    async with serving(settings(tmp_path / "run")) as run:
        for paused in (True, False):
            with pytest.raises(UsageError, match=words):
                await call(asking.pause, run.address, name, paused)


async def test_where_data_belong_to_workers_none_can_be_paused(tmp_path: Path) -> None:
    told = settings(tmp_path / "run", policy="malenia", partition=2)
    async with serving(told) as run, RawWorker(run.address, "w1") as worker:
        await worker.join()
        with pytest.raises(UsageError, match=r"--partition 2.*expected `paceline drain`"):
            await call(asking.pause, run.address, "w1", True)


# ---- checkpoints -----------------------------------------------------------------------------------------------------


async def test_a_checkpoint_is_saved_when_it_is_asked_for(tmp_path: Path) -> None:
    async with serving(settings(tmp_path / "run", rounds=1000)) as run, RawWorker(run.address) as worker:
        await worker.join()
        for _ in range(3):
            await worker.work()
        await worker.hear("lease")
        version = await call(asking.checkpoint, run.address)
        assert version == 3
        saved = await asyncio.to_thread(lambda: [one.name for one in (tmp_path / "run" / "checkpoints").iterdir()])
        assert any("3" in name for name in saved), saved


async def test_a_run_that_saves_no_checkpoints_says_so(tmp_path: Path) -> None:
    async with serving(settings(tmp_path / "run", checkpoint_every="never")) as run:
        with pytest.raises(UsageError, match="checkpoint-every is never"):
            await call(asking.checkpoint, run.address)


@contextlib.asynccontextmanager
async def administered(operations: RunOperations) -> AsyncIterator[str]:
    """Serve the calls of admins alone."""
    server = grpc.aio.server()
    handlers = Administration(Gate(None, encrypted=False), operations).handlers()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("paceline.v1.Coordinator", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


def operations_that(checkpoint: Callable[[], int]) -> RunOperations:
    async def save() -> int:
        return checkpoint()

    return RunOperations(lambda reason, grace_s: None, lambda name: None, lambda name, paused: None, save)


async def test_a_checkpoint_s_version_is_told() -> None:
    async with administered(operations_that(lambda: 41)) as address:
        assert await call(asking.checkpoint, address) == 41


@pytest.mark.parametrize("error", [UsageError("the run has not begun"), CheckpointError("the disk is full")])
async def test_why_there_is_no_checkpoint_is_told(error: Exception) -> None:
    def fail() -> int:
        raise error

    async with administered(operations_that(fail)) as address:
        with pytest.raises(UsageError, match=str(error)):
            await call(asking.checkpoint, address)


# ---- who may ---------------------------------------------------------------------------------------------------------


async def test_without_tokens_admin_calls_come_from_this_machine_only(tmp_path: Path) -> None:
    host = own_address()
    async with serving(settings(tmp_path / "run", bind=f"{host}:0", insecure=True)) as run:
        for question, given in ((asking.stop, [0.0]), (asking.drain, ["w1"]), (asking.checkpoint, [])):
            with pytest.raises(RefusedError, match="from the server's own machine only"):
                await call(question, run.address, *given)
        assert (await run.status()).state == "waiting"


async def test_without_tokens_a_certificate_of_the_ca_is_an_admin(tmp_path: Path) -> None:
    host = own_address()
    make_certificates(tmp_path / "tls", [host])
    access = Access(read_tls(tmp_path / "tls", "worker"))
    async with serving(settings(tmp_path / "run", bind=f"{host}:0", tls_dir=tmp_path / "tls")) as run:
        await call(asking.stop, run.address, 0.0, access=access)
        assert (await run.end()).outcome is Outcome.STOPPED


async def test_an_admin_s_token_is_enough_from_anywhere(tmp_path: Path) -> None:
    access = Access(token=create_token(tmp_path / "tokens.json", "ann", Role.ADMIN, None))
    host = own_address()
    chosen = settings(tmp_path / "run", bind=f"{host}:0", insecure=True, tokens=tmp_path / "tokens.json")
    async with serving(chosen) as run:
        with pytest.raises(RefusedError, match="no token came with the call"):
            await call(asking.stop, run.address, 0.0)
        await call(asking.stop, run.address, 0.0, access=access)
        assert (await run.end()).outcome is Outcome.STOPPED
