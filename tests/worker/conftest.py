from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from paceline.loading import load_job
from paceline.protos import coordinator_pb2 as pb
from paceline.settings import WorkerSettings
from paceline.worker.daemon import Worker
from tests.worker.peer import WITHIN_S, Peer, ServerSide, Session


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    yield peer
    peer.stop()


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
