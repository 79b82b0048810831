from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from paceline.errors import UsageError
from paceline.server.rundir import RunDir, write_whole
from paceline.version import __version__


def begin(run_dir: RunDir) -> None:
    run_dir.write_settings({"tasks": 23}, {"job": "Digits"}, "abcdef012345", protocol=1)


def test_the_directory_says_itself_what_it_holds(tmp_path: Path) -> None:
    run_dir = RunDir.create(tmp_path / "deep" / "a", "examples/digits.py:Digits")
    begin(run_dir)
    document = json.loads((run_dir.path / "settings.json").read_text())
    assert document["settings"] == {"tasks": 23}
    assert (document["job_fingerprint"], document["initial_model"]) == ({"job": "Digits"}, "abcdef012345")
    assert (document["format"], document["paceline"], document["protocol"]) == (1, __version__, 1)
    assert document["job"] == "examples/digits.py:Digits"
    assert "ledger.sqlite" in (run_dir.path / "README.txt").read_text()
    assert sorted(path.name for path in run_dir.path.iterdir()) == [".lock", "README.txt", "settings.json"]


def test_the_default_is_named_by_job_and_time_and_never_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = [RunDir.create(None, "examples/digits.py:Digits").path for _ in range(3)]
    assert len(set(paths)) == 3
    assert all(path.parent == Path("runs") and path.name.startswith("Digits-2") for path in paths)


@pytest.mark.parametrize("name", ["settings.json", "ledger.sqlite", "model.safetensors"])
def test_a_directory_that_holds_a_run_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(UsageError, match=f"{tmp_path}.*holds a run already .{name}.*--run-dir"):
        RunDir.create(tmp_path, "job.py:Job")


def test_a_directory_with_other_files_is_taken(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    begin(RunDir.create(tmp_path, "job.py:Job"))


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(UsageError, match=r"'.*/a' is a file"):
        RunDir.create(tmp_path / "a", "job.py:Job")
    with pytest.raises(UsageError, match=r"'.*/a/b' cannot be used: Not a directory"):
        RunDir.create(tmp_path / "a" / "b", "job.py:Job")


def test_of_many_servers_that_begin_in_one_directory_one_gets_it(tmp_path: Path) -> None:
    run_dirs = [RunDir.create(tmp_path, "job.py:Job") for _ in range(8)]
    refused: list[str] = []

    def claim(run_dir: RunDir) -> None:
        try:
            begin(run_dir)
        except UsageError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=claim, args=(run_dir,)) for run_dir in run_dirs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 7
    assert all("holds a run already (settings.json)" in message for message in refused)
    assert json.loads((tmp_path / "settings.json").read_text())["job"] == "job.py:Job"


def test_discard_removes_only_what_is_empty(tmp_path: Path) -> None:
    unused = RunDir.create(tmp_path / "unused", "job.py:Job")
    unused.discard()
    assert not unused.path.exists()
    used = RunDir.create(tmp_path / "used", "job.py:Job")
    begin(used)
    used.discard()
    assert used.path.exists()


def test_a_write_that_fails_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.json"
    write_whole(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.json"]
