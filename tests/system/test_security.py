"""TLS, tokens and admins with real processes: what the command line says, and what they exit with."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.cluster import Cluster, cluster, paceline, until
from tests.system.guarded import Guarded

pytestmark = pytest.mark.system


@pytest.fixture
def guarded(tmp_path: Path) -> Guarded:
    return Guarded(tmp_path)


@pytest.fixture
def run(tmp_path: Path, guarded: Guarded) -> Iterator[Cluster]:
    flags = ("--tls-dir", str(guarded.tls), "--tokens", str(guarded.tokens), "--rounds", "1000000", "--tasks", "4")
    with cluster(tmp_path, "tests/jobs.py:Tiny", *flags) as made:
        until(lambda: paceline("status", made.address, *guarded.admin).returncode == 0, "a server that answers")
        yield made


def test_a_guarded_run_is_joined_seen_drained_and_stopped(run: Cluster, guarded: Guarded) -> None:
    for name in ("w1", "w2"):
        run.worker(name, *guarded.token(name))
    guarded.at_work(run, "w1", "w2")
    done = paceline("drain", run.address, "w1", *guarded.admin)
    assert (done.returncode, done.stderr) == (0, "")
    run.end("w1")
    assert "an admin wants it to leave" in run.log("w1")
    assert "drained; done:" in run.log("w1")
    guarded.at_work(run, "w2")
    done = paceline("stop", run.address, "--grace", "30s", *guarded.admin)
    assert (done.returncode, done.stderr) == (0, "")
    run.end("server")
    assert "stopped by `paceline stop`" in run.log("server")
    assert (run.run_dir / "model.safetensors").is_file()
    run.end("w2", code=75)
    everything = run.all_logs()
    assert not re.search(r"pl_[0-9a-f]{12}_", everything)


def test_a_revoked_worker_leaves_with_the_reason_and_for_good(run: Cluster, guarded: Guarded) -> None:
    run.worker("w1", *guarded.token("w1"))
    guarded.at_work(run, "w1")
    done = paceline("token", "revoke", "--tokens", str(guarded.tokens), "w1")
    assert done.stdout.startswith("revoked token ")
    run.end("w1", code=77)
    assert "of 'w1' was revoked at" in run.log("w1")


@pytest.mark.slow
def test_everybody_else_is_refused_with_its_own_reason(run: Cluster, guarded: Guarded) -> None:
    tls = ("--tls-dir", str(guarded.tls))
    worker = guarded.token("w1")
    for flags, words in (
        ((), "the server wants TLS"),
        (tls, "no token came with the call"),
        (worker, "has role worker: expected admin or viewer"),
        (guarded.token("old", "--role", "viewer", "--expires", "0.001s"), "of 'old' expired at"),
    ):
        done = paceline("status", run.address, *flags)
        assert (done.returncode, words in done.stderr) == (77, True), done.stderr
    for command in (("stop",), ("drain", "w1"), ("checkpoint", "now")):
        verb, given = (command, ()) if command[0] == "checkpoint" else (command[:1], command[1:])
        done = paceline(*verb, run.address, *given, *worker)
        assert (done.returncode, "has role worker: expected admin" in done.stderr) == (77, True), done.stderr
    for name, flags, words in (
        ("w1", (), "the server wants TLS"),
        ("w2", tls, "no token came with the call"),
        ("w3", worker, "is of worker 'w1': expected it of 'w3'"),
    ):
        run.worker(name, *flags)
        run.end(name, code=77)
        assert words in run.log(name)
    assert paceline("status", run.address, *guarded.admin).returncode == 0
    # What strangers do before they are known does not fill the log.
    assert "andshake" not in run.log("server")


def test_mistakes_of_ones_own_are_said_before_anything_is_begun(tmp_path: Path, guarded: Guarded) -> None:
    (guarded.tls / "worker.key").write_bytes((guarded.tls / "server.key").read_bytes())
    (tmp_path / "empty.token").write_text("")
    for args, code, words in (
        (("status", "127.0.0.1:1", "--tls-dir", str(guarded.tls)), 78, "worker.key does not match"),
        (("worker", "127.0.0.1:1", "tests/jobs.py:Tiny", "--tls-dir", str(tmp_path)), 78, "ca.pem is missing"),
        (
            ("worker", "127.0.0.1:1", "tests/jobs.py:Tiny", "--token-file", str(tmp_path / "empty.token")),
            78,
            "no token",
        ),
        (("server", "tests/jobs.py:Tiny", "--bind", "0.0.0.0:0"), 78, "expected --tls-dir"),
        (("server", "tests/jobs.py:Tiny", "--tls-dir", str(tmp_path)), 78, "ca.pem is missing"),
        (("server", "tests/jobs.py:Tiny", "--tokens", str(tmp_path / "none")), 2, "paceline token create"),
        (("stop", "nowhere"), 2, "server is 'nowhere'"),
        (("stop", "127.0.0.1:1", "--grace", "soon"), 2, "--grace is 'soon'"),
    ):
        done = paceline(*args)
        assert (done.returncode, words in done.stderr) == (code, True), done.stderr
        assert done.stderr.count("\n") == 1
