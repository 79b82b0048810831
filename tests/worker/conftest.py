from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.worker.joined import DIGITS, Joined
from tests.worker.peer import Peer


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    yield peer
    peer.stop()


@pytest.fixture
def pushing(peer: Peer) -> Joined:
    """A worker that moves everything over Transfer, at a small model's price."""
    return Joined(peer, DIGITS, {"inline_bytes": 0, "sums": "exact"})
