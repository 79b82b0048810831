"""`paceline doctor` against real servers: each way in which a worker cannot join is told by its name."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.cluster import Cluster, cluster, free_port, paceline, until
from tests.system.guarded import Guarded

pytestmark = [pytest.mark.system, pytest.mark.slow]

JOB = "tests/jobs.py:Tiny"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Guarded:
    return Guarded(tmp_path_factory.mktemp("guarded"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, guarded: Guarded) -> Iterator[Cluster]:
    flags = ("--tls-dir", str(guarded.tls), "--tokens", str(guarded.tokens), "--rounds", "1000000", "--tasks", "4")
    with cluster(tmp_path_factory.mktemp("run"), JOB, *flags) as made:
        until(lambda: paceline("status", made.address, *guarded.admin).returncode == 0, "a server that answers")
        yield made


def steps(done: subprocess.CompletedProcess[str]) -> dict[str, tuple[str, str]]:
    """Give what was said of each step: its mark, and the words."""
    assert "Traceback" not in done.stderr, done.stderr
    rows = [(line[:8].strip(), line[9:15].strip(), line[16:]) for line in done.stdout.splitlines()]
    return {name: (mark, says) for name, mark, says in rows if mark in ("ok", "WRONG", "-")}


def wrong(done: subprocess.CompletedProcess[str], name: str, told: str, code: int) -> None:
    """See that this step went wrong, and none after it was taken."""
    found = steps(done)
    assert done.returncode == code, done.stdout + done.stderr
    assert found[name][0] == "WRONG"
    assert told in found[name][1]
    assert list(found)[-1] == name
    assert all(mark == "ok" for mark, _ in list(found.values())[:-1])


def test_a_worker_that_may_join_is_told_so_and_nothing_is_left_of_the_visit(run: Cluster, guarded: Guarded) -> None:
    done = paceline("doctor", run.address, JOB, "--name", "w1", *guarded.token("w1"))
    assert done.returncode == 0, done.stdout + done.stderr
    found = steps(done)
    assert list(found) == ["name", "port", "tls", "token", "version", "job"]
    assert {mark for mark, _ in found.values()} == {"ok"}
    assert "the server welcomes 'w1', with its token" in found["token"][1]
    assert done.stdout.splitlines()[-1] == "nothing keeps this worker away"
    until(lambda: "w1" not in str(run_workers(run, guarded)), "its end")


def run_workers(run: Cluster, guarded: Guarded) -> list[str]:
    said = paceline("status", run.address, *guarded.admin).stdout
    return [
        line
        for line in said.splitlines()
        if line.strip().startswith("w1") and " lost" not in line and " left" not in line
    ]


def test_without_a_job_jobs_are_not_compared(run: Cluster, guarded: Guarded) -> None:
    done = paceline("doctor", run.address, "--name", "w2", *guarded.token("w2"))
    assert done.returncode == 0
    assert steps(done)["job"][0] == "-"
    assert f"the server's is {JOB}" in done.stdout


@pytest.mark.parametrize(
    ("job", "told", "code"),
    [
        ("tests/jobs.py:Augmented", "it is not the server's: the job is Tiny on the server, Augmented here", 77),
        ("tests/nowhere.py:Tiny", "job file 'tests/nowhere.py' does not exist", 2),
    ],
)
def test_another_job_is_told_apart(run: Cluster, guarded: Guarded, job: str, told: str, code: int) -> None:
    wrong(paceline("doctor", run.address, job, "--name", "w3", *guarded.token("w3")), "job", told, code)


def test_tokens_that_do_not_fit_are_told(run: Cluster, guarded: Guarded) -> None:
    ours = guarded.token("w4")
    wrong(paceline("doctor", run.address, "--name", "other", *ours), "hello", "expected it of 'other'", 77)
    wrong(paceline("doctor", run.address, "--name", "w4", *ours[:2]), "token", "no token came with the call", 77)
    viewer = guarded.token("v", "--role", "viewer")
    wrong(paceline("doctor", run.address, "--name", "v", *viewer), "token", "has role viewer", 77)


def test_who_speaks_no_tls_is_told(run: Cluster, guarded: Guarded) -> None:
    wrong(paceline("doctor", run.address), "tls", "the server wants TLS: give --tls-dir", 77)


def test_certificates_of_another_ca_are_told(run: Cluster, tmp_path: Path) -> None:
    assert paceline("certs", "init", str(tmp_path / "tls"), "--host", "elsewhere").returncode == 0
    done = paceline("doctor", run.address, "--tls-dir", str(tmp_path / "tls"))
    wrong(done, "tls", "the server's certificate is not of the CA", 77)


def test_a_name_that_nobody_knows_is_told() -> None:
    wrong(paceline("doctor", "no-such-host.invalid:7070"), "name", "'no-such-host.invalid' is not known here", 69)


def test_a_port_at_which_nobody_listens_is_told() -> None:
    wrong(paceline("doctor", f"127.0.0.1:{free_port()}"), "port", "is the server running, and started with --bind", 69)


def test_something_else_that_listens_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        found = paceline("doctor", f"127.0.0.1:{port}")
    assert found.returncode == 69
    assert steps(found)["hello"][0] == "WRONG"


def test_an_address_that_is_none_is_a_mistake_of_the_command_line() -> None:
    done = paceline("doctor", "main-node")
    assert done.returncode == 2
    assert done.stderr == "paceline: server is 'main-node': expected HOST:PORT, with a port of 1 to 65535\n"
