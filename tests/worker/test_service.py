"""What a process of a worker says and exits with. run_worker has the test's main thread, the server another."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paceline.log_format import FORMAT_VARIABLE
from paceline.protos import coordinator_pb2 as pb
from paceline.settings import WorkerSettings
from paceline.worker import run_worker
from tests.server.raw_worker import own_address
from tests.worker.peer import Peer, ServerSide, Session

TINY = "tests/jobs.py:Tiny"


def run(peer: Peer | str, script: Callable[[], None] | None = None, **settings: Any) -> int:
    """Run a worker while a script plays its server."""
    address = peer if isinstance(peer, str) else peer.address
    failures: list[BaseException] = []

    def play() -> None:
        try:
            if script is not None:
                script()
        except BaseException as error:
            failures.append(error)

    player = threading.Thread(target=play)
    player.start()
    code = run_worker(WorkerSettings(**{"server": address, "job": TINY, "name": "w1", **settings}))
    player.join()
    if failures:
        raise failures[0]
    return code


def test_its_lines_are_json_where_nobody_watches(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for said, begins in (("", "{"), ("text", "paceline worker: "), ("json", "{")):
        monkeypatch.setenv(FORMAT_VARIABLE, said)
        assert run("127.0.0.1:1", job="tests/jobs.py:Missing") != 0
        line = capfd.readouterr().err.splitlines()[-1]
        assert line.startswith(begins)
        assert "Missing" in (json.loads(line)["event"] if begins == "{" else line)


def join(peer: Peer, side: ServerSide) -> Session:
    session = peer.session()
    session.expect("hello")
    session.send(side.welcome())
    session.expect("ready")
    return session


def test_worker_of_a_finished_run_exits_with_0_and_says_what_it_did(
    peer: Peer, capfd: pytest.CaptureFixture[str]
) -> None:
    side = ServerSide(TINY)

    def script() -> None:
        session = join(peer, side)
        session.send(side.lease(1, [0, 1, 2]))
        for _ in range(3):
            session.expect("report")
        session.goodbye(pb.RUN_OUTCOME_DONE, "3 rounds are done")

    assert run(peer, script) == 0
    words = capfd.readouterr().err
    assert f"joined {peer.address} as w1" in words
    assert "the run is over: 3 rounds are done; done: 3 tasks" in words


def test_refused_worker_exits_with_77_and_the_reason(peer: Peer, capfd: pytest.CaptureFixture[str]) -> None:
    def script() -> None:
        session = peer.session()
        session.expect("hello")
        reason = "the name w1 is in use by desk pid 7"
        session.say(refused=pb.Refused(code=pb.REFUSAL_CODE_NAME_IN_USE, reason=reason))
        session.end()

    assert run(peer, script) == 77
    words = capfd.readouterr().err
    assert "the name w1 is in use by desk pid 7" in words
    assert "Traceback" not in words


def test_failed_run_exits_with_1(peer: Peer) -> None:
    side = ServerSide(TINY)
    assert run(peer, lambda: join(peer, side).goodbye(pb.RUN_OUTCOME_FAILED, "task 3 failed")) == 1


def test_unreachable_server_exits_with_69_and_is_said_once(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        # Bound, and nobody listens.
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert run(address, reconnect_for_s=0.4) == 69
    words = capfd.readouterr().err
    assert words.count(f"waiting for {address}") == 1
    assert f"no server at {address} for" in words
    assert "Traceback" not in words


@pytest.mark.parametrize(
    ("settings", "code", "words"),
    [
        ({"job": "tests/nothing.py:Job"}, 2, "tests/nothing.py"),
        ({"job": "tests/jobs.py:Tinny"}, 2, "did you mean Tiny"),
        ({"device": "cuda:999"}, 78, "cuda:999 is not there"),
        ({"delay": "sometimes"}, 2, "'sometimes' is unknown"),
    ],
)
def test_users_mistake_is_one_line_before_anything_is_tried(
    settings: dict[str, Any], code: int, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("127.0.0.1:1", **settings) == code
    said = capfd.readouterr().err
    assert words in said
    assert len(said.splitlines()) == 1


def test_job_that_raises_shows_its_own_traceback(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    job = tmp_path / "broken_job.py"
    job.write_text("raise RuntimeError('no data here')\n")
    assert run("127.0.0.1:1", job=f"{job}:Job") == 2
    said = capfd.readouterr().err
    assert "broken_job.py" in said
    assert "no data here" in said
    assert "loading.py" not in said


def test_dataset_that_fails_ends_the_worker_with_2(peer: Peer, tmp_path: Path) -> None:
    job = tmp_path / "empty_job.py"
    job.write_text("from tests.jobs import Tiny\nclass Empty(Tiny):\n    def dataset(self):\n        return []\n")
    side = ServerSide(TINY)

    def script() -> None:
        session = peer.session()
        session.expect("hello")
        session.send(side.welcome())
        assert session.next() is None

    assert run(peer, script, job=f"{job}:Empty") == 2


def test_bug_of_ours_exits_with_70_and_a_traceback(peer: Peer, capfd: pytest.CaptureFixture[str]) -> None:
    side = ServerSide(TINY)

    def script() -> None:
        session = join(peer, side)
        # No server does this: a pull of another size than its model's.
        session.send(side.lease(1, [0], inline=False))
        transfer = peer.transfer()
        transfer.expect("pull")
        transfer.say(pull_begin=pb.PullBegin(version=0, total_bytes=12))
        while session.next() is not None:
            pass

    assert run(peer, script) == 70
    words = capfd.readouterr().err
    assert "Traceback" in words
    assert "bug in paceline" in words


def test_sigterm_drains(peer: Peer, capfd: pytest.CaptureFixture[str]) -> None:
    side = ServerSide(TINY)

    def script() -> None:
        session = join(peer, side)
        os.kill(os.getpid(), signal.SIGTERM)
        session.expect("drain")
        session.goodbye(pb.RUN_OUTCOME_DRAINED)

    assert run(peer, script) == 0
    assert "draining" in capfd.readouterr().err


def test_second_sigterm_quits_at_once(peer: Peer) -> None:
    side = ServerSide(TINY)

    def script() -> None:
        session = join(peer, side)
        session.send(side.lease(1, [0]))
        os.kill(os.getpid(), signal.SIGTERM)
        session.expect("drain")
        os.kill(os.getpid(), signal.SIGTERM)
        while session.next() is not None:
            pass

    assert run(peer, script, delay="const:600") == 143


def test_sigterm_before_it_has_joined_ends_it(peer: Peer) -> None:
    def script() -> None:
        peer.session().expect("hello")
        os.kill(os.getpid(), signal.SIGTERM)

    assert run(peer, script) == 0


def test_sigterm_while_the_job_is_built_ends_it(peer: Peer, tmp_path: Path) -> None:
    job = tmp_path / "slow_job.py"
    job.write_text(
        "import os, signal, time\n"
        "from tests.jobs import Tiny\n"
        "class Slow(Tiny):\n"
        "    def dataset(self):\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        time.sleep(600)\n"
    )
    side = ServerSide(TINY)

    def script() -> None:
        session = peer.session()
        session.expect("hello")
        session.send(side.welcome())
        while session.next() is not None:
            pass

    assert run(peer, script, job=f"{job}:Slow") == 0


def test_sigint_quits_after_saying_so(peer: Peer, capfd: pytest.CaptureFixture[str]) -> None:
    side = ServerSide(TINY)

    def script() -> None:
        session = join(peer, side)
        session.send(side.lease(1, [0]))
        os.kill(os.getpid(), signal.SIGINT)
        assert session.next() is None

    before = signal.getsignal(signal.SIGTERM)
    assert run(peer, script, delay="const:600") == 130
    assert "interrupted" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


def test_worker_without_a_name_takes_a_slot(peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paceline.worker.names.default_folder", lambda: tmp_path)
    names = []

    def script() -> None:
        session = peer.session()
        names.append(session.expect("hello").name)
        session.goodbye(pb.RUN_OUTCOME_DONE)

    assert run(peer, script, name=None) == 0
    assert names[0].endswith("-1")
    assert [path.name for path in tmp_path.iterdir()] == [f"{names[0]}.lock"]


def test_a_token_that_would_go_unencrypted_over_a_network_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PACELINE_TOKEN", f"pl_{'0' * 12}_{'0' * 64}")
    for host, warned in ((own_address(), True), ("127.0.0.1", False)):
        with socket.create_server((host, 0)) as free:
            port = free.getsockname()[1]
        assert run(f"{host}:{port}", reconnect_for_s=0) == 69
        said = capfd.readouterr().err
        assert (f"the token goes to {host}:{port} unencrypted" in said) is warned
        assert "0" * 64 not in said
