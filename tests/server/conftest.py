"""What the tests of the server share."""

from __future__ import annotations

from pathlib import Path

import pytest

from paceline.server.checkpoints import CheckpointStore


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "run" / "checkpoints", keep=2)
