"""A real server behind TLS: who has a certificate of its CA joins, and everybody else hears his own reason."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Literal

import grpc
import grpc.aio
import pytest
import torch

from paceline.access import Access
from paceline.certificates import make_certificates
from paceline.errors import RefusedError, SettingsError
from paceline.loading import load_job
from paceline.protos import coordinator_pb2 as pb
from paceline.server import serve
from paceline.server.status import fetch_status
from paceline.settings import WorkerSettings
from paceline.tls import Tls, read_tls
from paceline.worker.daemon import Worker
from tests.forged import again
from tests.server.raw_worker import JOB, LIMIT_S, RawWorker, serving, settings


async def ask(address: str, access: Access) -> pb.StatusResponse:
    """Ask for the status, as `paceline status` does."""
    return await asyncio.to_thread(fetch_status, address, LIMIT_S, access)


async def join(address: str, access: Access) -> str:
    """Let a real worker join."""
    own = WorkerSettings(server=address, job=JOB, reconnect_for_s=LIMIT_S)
    worker = Worker(own, load_job(JOB), torch.device("cpu"), "w1", lambda line: None, access)
    return await asyncio.wait_for(asyncio.to_thread(worker.run), LIMIT_S)


def unchecked(folder: Path, side: Literal["server", "worker"] = "worker") -> Tls:
    """Read a side's files as they are, as somebody would who has no good intentions."""
    good = folder.parent / "good"
    if not good.exists():
        make_certificates(good, ["main-node"])
    ca, certificate, key = ((folder / name).read_bytes() for name in ("ca.pem", f"{side}.pem", f"{side}.key"))
    return dataclasses.replace(read_tls(good, side), folder=folder, ca=ca, certificate=certificate, key=key)


@contextlib.asynccontextmanager
async def answering(tls: Tls) -> AsyncIterator[str]:
    """Serve TLS with a side's certificate, whatever it is."""
    server = grpc.aio.server()
    port = server.add_secure_port(
        "127.0.0.1:0", grpc.ssl_server_credentials([(tls.key, tls.certificate)], tls.ca, True)
    )
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


@pytest.fixture
def tls_dir(tmp_path: Path) -> Path:
    make_certificates(tmp_path / "tls", ["main-node"])
    return tmp_path / "tls"


@pytest.fixture
def other_dir(tmp_path: Path) -> Path:
    make_certificates(tmp_path / "other", ["main-node"])
    return tmp_path / "other"


async def test_a_worker_with_a_certificate_of_the_ca_trains(tmp_path: Path, tls_dir: Path) -> None:
    access = Access(read_tls(tls_dir, "worker"))
    async with (
        serving(settings(tmp_path / "run", tls_dir=tls_dir)) as run,
        RawWorker(run.address, access=access) as worker,
    ):
        await worker.join()
        lease = await worker.hear("lease")
        async with worker.transfer() as transfer:
            assert await transfer.pull(version=0) == lease.state
        await worker.push(worker.contribution(lease))
        await worker.work()
        assert (await worker.hear("goodbye")).outcome == pb.RUN_OUTCOME_DONE
        await run.end()


async def test_a_bind_beyond_loopback_needs_no_insecure_with_tls(
    tmp_path: Path, tls_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(settings(tmp_path / "run", bind="0.0.0.0:0", tls_dir=tls_dir)) as run:
        here = f"localhost:{run.address.rpartition(':')[2]}"
        assert (await ask(here, Access(read_tls(tls_dir, "worker")))).state == "waiting"
    printed = capsys.readouterr()
    assert "INSECURE" not in printed.out + printed.err
    assert "TLS" in printed.out + printed.err


async def test_a_server_with_bad_certificates_does_not_begin(tmp_path: Path, tls_dir: Path) -> None:
    again(tls_dir, "server", from_days=-2, to_days=-1)
    with pytest.raises(SettingsError, match=r"server\.pem expired"):
        await serve(settings(tmp_path / "run", tls_dir=tls_dir))
    assert not await asyncio.to_thread((tmp_path / "run").exists)


def nothing(tls_dir: Path, other_dir: Path) -> Tls | None:
    return None


def of_another_ca(tls_dir: Path, other_dir: Path) -> Tls:
    return read_tls(other_dir, "worker")


def another_ca_s_worker(tls_dir: Path, other_dir: Path) -> Tls:
    """It trusts the server, and shows a certificate that the server does not know."""
    shutil.copy(tls_dir / "ca.pem", other_dir)
    return unchecked(other_dir)


def self_made(tls_dir: Path, other_dir: Path) -> Tls:
    again(tls_dir, "worker", self_made=True)
    return unchecked(tls_dir)


def expired(tls_dir: Path, other_dir: Path) -> Tls:
    again(tls_dir, "worker", from_days=-3, to_days=-1)
    return unchecked(tls_dir)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (nothing, "the server wants TLS"),
        (of_another_ca, "the server's certificate is not of the CA in"),
        (another_ca_s_worker, "the server does not accept"),
        (self_made, "the server does not accept"),
        (expired, "the server does not accept"),
    ],
)
async def test_whoever_has_no_good_certificate_is_refused_with_its_reason(
    tmp_path: Path, tls_dir: Path, other_dir: Path, make: Callable[[Path, Path], Tls | None], reason: str
) -> None:
    good = Access(read_tls(tls_dir, "worker"))
    async with serving(settings(tmp_path / "run", tls_dir=tls_dir)) as run:
        access = Access(make(tls_dir, other_dir))
        with pytest.raises(RefusedError, match=reason):
            await ask(run.address, access)
        with pytest.raises(RefusedError, match=reason):
            await join(run.address, access)
        assert not (await ask(run.address, good)).workers


async def test_a_server_for_another_host_is_not_believed(tmp_path: Path, tls_dir: Path) -> None:
    again(tls_dir, "server", hosts=["main-node"])
    async with serving(settings(tmp_path / "run", tls_dir=tls_dir)) as run:
        with pytest.raises(RefusedError, match=r"not for '127\.0\.0\.1'.*--host 127\.0\.0\.1"):
            await ask(run.address, Access(read_tls(tls_dir, "worker")))


async def test_a_server_whose_certificate_expired_while_it_ran_is_named(tmp_path: Path, tls_dir: Path) -> None:
    access = Access(read_tls(tls_dir, "worker"))
    again(tls_dir, "server", from_days=-3, to_days=-1)
    async with answering(unchecked(tls_dir, "server")) as address:
        with pytest.raises(RefusedError, match="the server's certificate has expired"):
            await ask(address, access)


async def test_a_worker_s_key_cannot_play_the_server(tls_dir: Path) -> None:
    access = Access(read_tls(tls_dir, "worker"))
    async with answering(unchecked(tls_dir, "worker")) as address:
        with pytest.raises(RefusedError, match="a worker's certificate"):
            await ask(address, access)
        with pytest.raises(RefusedError, match="a worker's certificate"):
            await join(address, access)


async def test_a_server_without_tls_is_named(tmp_path: Path, tls_dir: Path) -> None:
    access = Access(read_tls(tls_dir, "worker"))
    async with serving(settings(tmp_path / "run")) as run:
        with pytest.raises(RefusedError, match="speaks no TLS"):
            await ask(run.address, access)
        with pytest.raises(RefusedError, match="speaks no TLS"):
            await join(run.address, access)


def test_insecure_and_tls_contradict_each_other(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--insecure and --tls-dir"):
        settings(tmp_path, insecure=True, tls_dir=tmp_path)
