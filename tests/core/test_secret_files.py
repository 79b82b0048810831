from __future__ import annotations

import stat
from pathlib import Path

import pytest

from paceline.errors import UsageError
from paceline.secret_files import replace_secret, write_secret


def test_a_new_file_is_whole_and_for_its_owner_alone(tmp_path: Path) -> None:
    write_secret(tmp_path / "a", b"secret")
    assert (tmp_path / "a").read_bytes() == b"secret"
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_file_that_came_meanwhile_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        write_secret(tmp_path / "a", b"secret")
    assert (tmp_path / "a").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_file_is_replaced_in_one_step_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    replace_secret(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("write", [write_secret, replace_secret])
def test_what_cannot_be_written_is_named(tmp_path: Path, write: object) -> None:
    assert callable(write)
    with pytest.raises(UsageError, match=r"no/a cannot be written: No such file"):
        write(tmp_path / "no" / "a", b"secret")
