"""An export never takes the place of a file, also not of one that came after the first look."""

from __future__ import annotations

from pathlib import Path

import pytest

from paceline.errors import CheckpointError, UsageError
from paceline.server.checkpoint_export import copy_checked
from paceline.server.durable import checksum


def test_a_file_that_came_meanwhile_stays_as_it_is(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    source.write_bytes(b"weights")
    out.write_bytes(b"somebody's")
    with pytest.raises(UsageError, match="which exists already: expected a new file"):
        copy_checked(source, checksum(source), out)
    assert out.read_bytes() == b"somebody's"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]


def test_a_source_that_is_gone_is_a_fault_of_the_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"weights")
    expected = checksum(tmp_path / "source")
    (tmp_path / "source").unlink()
    with pytest.raises(CheckpointError, match="source' cannot be read: No such file"):
        copy_checked(tmp_path / "source", expected, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
