"""A checkpoint is there whole or not at all; the newest are kept, and what others put there too."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import google_crc32c
import pytest
import torch
from safetensors.torch import load_file

from paceline.errors import CheckpointError
from paceline.server import checkpoint_files
from paceline.server.checkpoint_files import MANIFEST, STATE, WEIGHTS
from paceline.server.checkpoints import CheckpointStore
from paceline.server.durable import checksum, sync
from paceline.version import __version__
from tests.server.checkpointed import assert_whole, names, save, weights_of

# ---- saving


def test_what_was_saved_is_loaded(store: CheckpointStore) -> None:
    saved = save(store, 120)
    assert_whole(store, 120)
    assert (saved.version, saved.path, saved.remark) == (120, store.folder / "00000120", "")
    assert names(saved.path) == [MANIFEST, WEIGHTS, STATE]
    assert saved.nbytes == sum(path.stat().st_size for path in saved.path.iterdir())
    assert saved.path.stat().st_mode & 0o777 == 0o755
    assert {path.stat().st_mode & 0o777 for path in saved.path.iterdir()} == {0o644}


def test_the_weights_are_plain_safetensors(store: CheckpointStore) -> None:
    found = load_file(save(store, 3).path / WEIGHTS)
    assert torch.equal(found["layer.weight"], weights_of(3)["layer.weight"])


def test_the_manifest_is_plain_json(store: CheckpointStore) -> None:
    document = json.loads((save(store, 3).path / MANIFEST).read_text())
    content = document["content"]
    assert set(document) == {"crc32c", "content"}
    assert (content["format"], content["version"], content["paceline"]) == (1, 3, __version__)
    assert content["files"][WEIGHTS]["bytes"] == (store.folder / "00000003" / WEIGHTS).stat().st_size


def test_loaded_tensors_need_the_files_no_longer(store: CheckpointStore) -> None:
    path = save(store, 3).path
    loaded = store.load(3)
    for file in path.iterdir():
        os.truncate(file, 0)  # a mapped one would now kill the process
    assert torch.equal(loaded.weights["layer.bias"], weights_of(3)["layer.bias"])
    assert all(tensor.data_ptr() % 64 == 0 for tensor in loaded.weights.values())


def test_a_state_without_tensors_is_saved_too(store: CheckpointStore) -> None:
    store.save(1, {}, {"scheduler": None}, None)
    loaded = store.load(1)
    assert (loaded.weights, loaded.state, loaded.content) == ({}, {"scheduler": None}, None)


def test_the_newest_are_kept(store: CheckpointStore) -> None:
    for version in (20, 40, 60, 80):
        save(store, version)
    assert [info.version for info in store.list()] == [80, 60]
    assert names(store.folder) == ["00000060", "00000080"]


def test_a_damaged_one_does_not_count_as_kept(store: CheckpointStore) -> None:
    for version in (20, 40):
        save(store, version)
    (store.folder / "00000040" / STATE).unlink()
    save(store, 60)
    assert [(info.version, bool(info.fault)) for info in store.list()] == [(60, False), (40, True), (20, False)]


def test_one_of_the_same_version_is_replaced(store: CheckpointStore) -> None:
    store.save(20, weights_of(99), {}, None)
    save(store, 20)
    assert_whole(store, 20)
    assert names(store.folder) == ["00000020"]


def test_later_ones_go_when_the_run_went_on_from_an_earlier_one(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints", keep=1)
    for version in (20, 40):
        CheckpointStore(store.folder, keep=3).save(version, weights_of(version), {}, None)
    save(store, 30)
    assert [info.version for info in store.list()] == [30]


def test_later_ones_are_dropped_when_asked(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints", keep=3)
    for version in (20, 40, 60):
        save(store, version)
    assert store.drop_after(20) == [40, 60]
    assert names(store.folder) == ["00000020"]


def test_the_hook_is_called_when_the_files_have_reached_the_disk_and_the_name_has_not(store: CheckpointStore) -> None:
    seen = []

    def hook() -> bool:
        (temporary,) = store.folder.iterdir()
        checkpoint_files.check(temporary)
        seen.append(temporary.name.partition("-")[0])
        return True

    save(store, 20, before_publish=hook)
    assert seen == [".tmp"]
    assert_whole(store, 20)


def test_one_that_is_given_up_leaves_nothing(store: CheckpointStore) -> None:
    save(store, 20)
    with pytest.raises(CheckpointError, match="00000040' was given up before it got its name"):
        save(store, 40, before_publish=lambda: False)
    assert names(store.folder) == ["00000020"]


def test_a_hook_that_raises_leaves_nothing(store: CheckpointStore) -> None:
    def hook() -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save(store, 40, before_publish=hook)
    assert names(store.folder) == []


@pytest.mark.parametrize(
    ("state", "content", "wrong"),
    [
        ({"job": {"fn": len}}, None, "state: job.fn is a builtin_function_or_method: expected tensors"),
        ({}, {"loss": float("nan")}, "expected JSON values"),
        ({}, {"ids": {1, 2}}, "expected JSON values"),
    ],
)
def test_what_cannot_be_saved_is_told_and_leaves_nothing(
    store: CheckpointStore, state: Any, content: Any, wrong: str
) -> None:
    with pytest.raises(CheckpointError, match=wrong):
        store.save(20, weights_of(20), state, content)
    assert names(store.folder) == []


# ---- what others put there


def test_foreign_files_are_named_and_not_deleted(store: CheckpointStore) -> None:
    for version in (20, 40):
        save(store, version)
    (store.folder / "notes.txt").write_text("mine")
    (store.folder / "0000060").mkdir()
    (store.folder / "00000099").symlink_to(store.folder / "00000040")
    (store.folder / "00000020" / "copy.safetensors").write_text("mine")
    assert store.foreign() == ["00000020/copy.safetensors", "00000099", "0000060", "notes.txt"]
    assert [info.version for info in store.list()] == [40, 20]
    for version in (60, 80):
        save(store, version)
    assert [info.version for info in store.list()] == [80, 60]
    kept = next(name for name in names(store.folder) if name.startswith("kept-00000020-"))
    assert (store.folder / kept / "copy.safetensors").read_text() == "mine"
    assert store.foreign() == ["00000099", "0000060", kept, "notes.txt"]


# ---- the parts


def test_a_checksum_is_that_of_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(random.Random(1).randbytes((2 << 20) + 5))
    first = checksum(path)
    assert (first.nbytes, first.crc32c) == ((2 << 20) + 5, google_crc32c.value(path.read_bytes()))
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    assert checksum(path) != first
    path.write_bytes(b"123456789")
    assert checksum(path).crc32c == 0xE3069283  # the check value of CRC-32C
    sync(path)
