"""A real server that asks for tokens: who has a good one gets in, and everybody else hears his own reason."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import grpc
import grpc.aio
import pytest

from paceline.access import OPEN, Access
from paceline.errors import RefusedError, UsageError
from paceline.protos import coordinator_pb2 as pb
from paceline.server import asking, serve
from paceline.server.failures import FAILURES
from paceline.server.status import fetch_status
from paceline.tokens import Role, create_token, revoke_tokens
from tests.server.raw_worker import LIMIT_S, RawWorker, Run, serving, settings


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    """Make a file of tokens with one that nobody uses."""
    create_token(tmp_path / "tokens.json", "nobody", Role.VIEWER, None)
    return tmp_path / "tokens.json"


def made(tokens: Path, name: str, role: Role = Role.WORKER, lasts_s: float | None = None) -> Access:
    return Access(token=create_token(tokens, name, role, lasts_s))


async def status(run: Run, access: Access) -> pb.StatusResponse:
    return await asyncio.to_thread(fetch_status, run.address, LIMIT_S, access)


async def refused_status(run: Run, access: Access) -> str:
    with pytest.raises(RefusedError) as caught:
        await status(run, access)
    return str(caught.value)


async def end_of(call: grpc.aio.Call) -> tuple[grpc.StatusCode, str]:
    async with asyncio.timeout(LIMIT_S):
        return await call.code(), await call.details()


# ---- joining ---------------------------------------------------------------------------------------------------------


async def test_a_worker_with_its_token_trains(tmp_path: Path, tokens: Path) -> None:
    access = made(tokens, "w1")
    async with serving(settings(tmp_path / "run", tokens=tokens)) as run, RawWorker(run.address, access=access) as w1:
        await w1.join()
        lease = await w1.hear("lease")
        async with w1.transfer() as transfer:
            assert await transfer.pull(version=0) == lease.state
        await w1.push(w1.contribution(lease))
        await w1.work()
        assert (await w1.hear("goodbye")).outcome == pb.RUN_OUTCOME_DONE
        await run.end()


def no_token(tokens: Path) -> Access:
    return OPEN


def wrong(tokens: Path) -> Access:
    token = made(tokens, "w1").token
    return Access(token=token[:-1] + ("0" if token[-1] != "0" else "1"))


def unknown(tokens: Path) -> Access:
    return Access(token="pl_" + "0" * 12 + "_" + "0" * 64)


def expired(tokens: Path) -> Access:
    return made(tokens, "w1", lasts_s=1e-6)


def revoked(tokens: Path) -> Access:
    access = made(tokens, "w1")
    revoke_tokens(tokens, "w1")
    return access


def viewer(tokens: Path) -> Access:
    return made(tokens, "w1", Role.VIEWER)


@pytest.mark.parametrize(
    ("make", "code", "words"),
    [
        (no_token, grpc.StatusCode.UNAUTHENTICATED, "no token came with the call"),
        (wrong, grpc.StatusCode.UNAUTHENTICATED, "unknown or wrong"),
        (unknown, grpc.StatusCode.UNAUTHENTICATED, "unknown or wrong"),
        (expired, grpc.StatusCode.UNAUTHENTICATED, "of 'w1' expired at"),
        (revoked, grpc.StatusCode.UNAUTHENTICATED, "of 'w1' was revoked at"),
        (viewer, grpc.StatusCode.PERMISSION_DENIED, "has role viewer: expected admin or worker"),
    ],
)
async def test_whoever_has_no_good_token_is_refused_with_its_reason_and_changes_nothing(
    tmp_path: Path,
    tokens: Path,
    capsys: pytest.CaptureFixture[str],
    make: Callable[[Path], Access],
    code: grpc.StatusCode,
    words: str,
) -> None:
    async with serving(settings(tmp_path / "run", tokens=tokens)) as run:
        access = make(tokens)
        async with RawWorker(run.address, access=access) as worker:
            found, details = await end_of(worker.stream)
            assert (found, words in details) == (code, True), details
            found, details = await end_of(worker.transfer().stream)
            assert (found, words in details) == (code, True), details
        assert not (await status(run, made(tokens, "ann", Role.ADMIN))).workers
    printed = "".join(capsys.readouterr())
    assert "refused" in printed
    assert words in printed
    assert not access.token or access.token.split("_")[2] not in printed


async def test_a_token_is_good_for_its_own_name_only(tmp_path: Path, tokens: Path) -> None:
    access = made(tokens, "w1")
    async with serving(settings(tmp_path / "run", tokens=tokens)) as run:
        async with RawWorker(run.address, "w2", access=access) as worker:
            await worker.say(hello=worker.hello())
            refused = await worker.hear("refused")
            assert refused.code == pb.REFUSAL_CODE_NOT_ALLOWED
            assert "is of worker 'w1'" in refused.reason
            assert "'w2'" in refused.reason
            await worker.hear_the_end()
        assert not (await status(run, made(tokens, "ann", Role.ADMIN))).workers


async def test_an_admin_may_join_under_any_name(tmp_path: Path, tokens: Path) -> None:
    access = made(tokens, "ann", Role.ADMIN)
    async with (
        serving(settings(tmp_path / "run", tokens=tokens)) as run,
        RawWorker(run.address, "w7", access=access) as worker,
    ):
        await worker.join()
        await worker.hear("lease")


async def test_a_data_stream_needs_the_token_of_its_own_session(tmp_path: Path, tokens: Path) -> None:
    async with (
        serving(settings(tmp_path / "run", tokens=tokens)) as run,
        RawWorker(run.address, "w1", access=made(tokens, "w1")) as w1,
        RawWorker(run.address, "w2", access=made(tokens, "w2")) as w2,
    ):
        await w1.join()
        await w1.hear("lease")
        thief = w2.transfer()
        # It learned the incarnation of the other somehow.
        await thief.say(attach=pb.Attach(protocol_version=1, incarnation=w1.incarnation))
        found, details = await end_of(thief.stream)
        assert (found, details) == (
            grpc.StatusCode.PERMISSION_DENIED,
            "attach names a worker that did not join with this token",
        )
        # Nor before its own session was welcome.
        early = w2.transfer()
        await early.say(attach=pb.Attach(protocol_version=1, incarnation=w2.incarnation))
        assert (await end_of(early.stream))[0] is grpc.StatusCode.PERMISSION_DENIED


async def test_a_revoked_token_s_worker_is_sent_away_while_it_works(tmp_path: Path, tokens: Path) -> None:
    async with (
        serving(settings(tmp_path / "run", tokens=tokens, rounds=1000)) as run,
        RawWorker(run.address, "w1", access=made(tokens, "w1")) as w1,
        RawWorker(run.address, "w2", access=made(tokens, "w2")) as w2,
    ):
        for worker in (w1, w2):
            await worker.join()
        transfer = w1.transfer()
        await transfer.say(attach=pb.Attach(protocol_version=1, incarnation=w1.incarnation))
        await w1.hear("lease")
        revoke_tokens(tokens, "w1")
        refused = await w1.hear("refused")
        assert refused.code == pb.REFUSAL_CODE_NOT_ALLOWED
        assert "of 'w1' was revoked at" in refused.reason
        await w1.hear_the_end()
        found, details = await end_of(transfer.stream)
        assert (found, details) == (grpc.StatusCode.UNAUTHENTICATED, refused.reason)
        # The other one takes over what it held.
        for _ in range(3):
            assert (await w2.work()).verdict == pb.PUSH_VERDICT_ACCEPTED


async def test_a_worker_is_sent_away_when_its_token_expires(tmp_path: Path, tokens: Path) -> None:
    async with (
        serving(settings(tmp_path / "run", tokens=tokens)) as run,
        RawWorker(run.address, access=made(tokens, "w1", lasts_s=1.0)) as worker,
    ):
        await worker.join()
        assert "expired at" in (await worker.hear("refused")).reason


async def test_a_token_made_while_the_server_runs_is_known(tmp_path: Path, tokens: Path) -> None:
    async with serving(settings(tmp_path / "run", tokens=tokens)) as run:
        access = made(tokens, "w1")
        async with RawWorker(run.address, access=access) as worker:
            await worker.join()
            await worker.hear("lease")


@pytest.mark.parametrize("damage", [lambda path: path.write_text("{"), lambda path: path.unlink()])
async def test_a_file_that_breaks_while_the_server_runs_changes_nothing_and_is_logged(
    tmp_path: Path, tokens: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None]
) -> None:
    access = made(tokens, "ann", Role.VIEWER)
    async with serving(settings(tmp_path / "run", tokens=tokens)) as run:
        damage(tokens)
        assert (await status(run, access)).state == "waiting"
        assert "no token" in await refused_status(run, OPEN)
    assert "the tokens that were read before still hold" in "".join(capsys.readouterr())


async def test_a_server_without_its_file_of_tokens_does_not_begin(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="paceline token create"):
        await serve(settings(tmp_path / "run", tokens=tmp_path / "none.json"))
    assert not await asyncio.to_thread((tmp_path / "run").exists)


# ---- asking ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", [Role.VIEWER, Role.ADMIN])
async def test_status_is_for_viewers_and_admins(tmp_path: Path, tokens: Path, role: Role) -> None:
    async with serving(settings(tmp_path / "run", tokens=tokens)) as run:
        assert (await status(run, made(tokens, "ann", role))).state == "waiting"
        assert "has role worker: expected admin or viewer" in await refused_status(run, made(tokens, "w1"))
        assert "no token" in await refused_status(run, OPEN)


@pytest.mark.parametrize("role", [Role.WORKER, Role.VIEWER])
async def test_admin_calls_are_for_admins(tmp_path: Path, tokens: Path, role: Role) -> None:
    access = made(tokens, "w1", role)
    async with serving(settings(tmp_path / "run", tokens=tokens)) as run:
        for call in (
            lambda: asking.stop(run.address, 0.0, LIMIT_S, access),
            lambda: asking.drain(run.address, "w1", LIMIT_S, access),
            lambda: asking.checkpoint(run.address, LIMIT_S, access),
        ):
            with pytest.raises(RefusedError, match=f"has role {role}: expected admin"):
                await asyncio.to_thread(call)
        assert not run.ended
        assert (await status(run, made(tokens, "ann", Role.ADMIN))).state == "waiting"


# ---- too many failures -----------------------------------------------------------------------------------------------


async def test_who_fails_often_is_told_to_wait_and_logged_no_more(
    tmp_path: Path, tokens: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = made(tokens, "ann", Role.VIEWER)
    async with serving(settings(tmp_path / "run", tokens=tokens)) as run:
        for _ in range(FAILURES):
            assert "no token" in await refused_status(run, OPEN)
        for _ in range(5):
            assert "too many failed calls from 127.0.0.1: try again in" in await refused_status(run, OPEN)
        # Who has a good token is not shut out by others behind the same address.
        assert (await status(run, good)).state == "waiting"
    assert "".join(capsys.readouterr()).count("no token came") == FAILURES
