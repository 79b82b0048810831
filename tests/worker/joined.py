"""A worker that has joined a scripted server, and what its contributions are checked with."""

from __future__ import annotations

import threading
from typing import Any

import torch

from paceline.loading import load_job
from paceline.protos import coordinator_pb2 as pb
from paceline.protos.framing import crc32c
from paceline.settings import WorkerSettings
from paceline.worker.daemon import Worker
from tests.worker.peer import WITHIN_S, Peer, ServerSide, Session

TINY = "tests/jobs.py:Tiny"
DIGITS = "tests/jobs.py:DigitsLike"
TANGLED = "tests/jobs.py:Augmented"


def check(contribution: pb.Contribution, side: ServerSide, tasks: list[int], version: int = 0) -> None:
    manifest = contribution.manifest
    assert list(manifest.tasks) == sorted(tasks)
    assert manifest.version == version
    assert manifest.total_bytes == len(contribution.payload) == sum(s.bytes for s in manifest.segments)
    assert side.gives(contribution.payload, tasks, version)
    assert contribution.payload_crc32c == crc32c(contribution.payload)


def other_constants() -> ServerSide:
    """Make a server whose constants are not those that the seed gives: it was started from saved weights."""
    side = ServerSide(TANGLED)
    side.flat.named_views()["table"].mul_(2.0)
    return side


class RunningWorker:
    """A worker whose computing thread is a thread of the test's process."""

    def __init__(self, peer: Peer, job: str, **settings: Any) -> None:
        self.said: list[str] = []
        self.ending: str | BaseException = ""
        own = WorkerSettings(**{"server": peer.address, "job": job, "name": "w1", **settings})
        self.worker = Worker(own, load_job(job), torch.device("cpu"), "w1", self.said.append)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.ending = self.worker.run()
        except BaseException as error:
            self.ending = error

    def join(self, peer: Peer, side: ServerSide) -> Session:
        """Welcome it and wait until it is ready."""
        session = peer.session()
        hello = session.expect("hello")
        assert not hello.leases
        session.send(side.welcome())
        ready = session.expect("ready")
        assert ready.job_fingerprint_json == side.fingerprint_json()
        return session

    def finished(self) -> str:
        """Wait for its end, which must be a good one."""
        self._thread.join(WITHIN_S)
        assert not self._thread.is_alive(), "the worker has not ended"
        if isinstance(self.ending, BaseException):
            raise self.ending
        return self.ending

    def end(self, session: Session) -> None:
        """Send it home and see it go."""
        session.goodbye(pb.RUN_OUTCOME_DONE)
        self.finished()


class Joined:
    """A worker that has joined."""

    def __init__(self, peer: Peer, job: str, shared: dict[str, Any] | None = None, **settings: Any) -> None:
        self.peer = peer
        self.side = ServerSide(job, **(shared or {}))
        self.worker = RunningWorker(peer, job, **settings)
        self.session = self.worker.join(peer, self.side)

    def resume(self, leases: list[int]) -> Session:
        self.session = self.peer.session()
        hello = self.session.expect("hello")
        assert list(hello.leases) == leases
        self.session.send(self.side.welcome(resumed=True))
        return self.session

    def end(self) -> None:
        self.worker.end(self.session)


def running(joined: Joined) -> bool:
    with joined.worker.worker._desk.books() as book:
        return any(lease.running is not None for lease in book.held())
