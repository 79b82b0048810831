"""Damage to a checkpoint's files is found, and the newest whole one is used."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from paceline.errors import CheckpointError
from paceline.server.checkpoint_files import MANIFEST, STATE, WEIGHTS
from paceline.server.checkpoints import CheckpointReader, CheckpointStore
from paceline.server.durable import seal, unseal
from tests.server.checkpointed import save


def damaged(store: CheckpointReader) -> tuple[str, str]:
    """Give what list and verify say of the only one; load must say the same as verify."""
    (info,) = store.list()
    fault = store.verify(info)
    if fault:
        with pytest.raises(CheckpointError) as raised:
            store.load(info.version)
        assert str(raised.value) == fault
    return info.fault, fault


@pytest.mark.parametrize("name", [MANIFEST, WEIGHTS, STATE])
def test_every_flipped_bit_is_found(store: CheckpointStore, name: str) -> None:
    path = save(store, 20).path / name
    whole = path.read_bytes()
    chance = random.Random(name)
    places = {0, 1, 7, 8, 20, len(whole) - 1, *(chance.randrange(len(whole)) for _ in range(60))}
    for place in places:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        _, fault = damaged(store)
        assert str(path) in fault, place
    path.write_bytes(whole)
    assert damaged(store) == ("", "")


@pytest.mark.parametrize("name", [MANIFEST, WEIGHTS, STATE])
def test_every_truncation_is_seen_at_first_sight(store: CheckpointStore, name: str) -> None:
    path = save(store, 20).path / name
    whole = path.read_bytes()
    for length in (0, 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        fault, verified = damaged(store)
        assert fault == verified
        assert str(path) in fault
        if name != MANIFEST:
            assert fault.endswith(f"has {length} bytes: expected {len(whole)}")
    path.write_bytes(whole + b"\n")
    assert str(path) in damaged(store)[0]
    path.unlink()
    assert damaged(store)[0].endswith(f"{name}' cannot be read: No such file or directory")


def test_a_checkpoint_under_another_name_is_a_fault(store: CheckpointStore) -> None:
    save(store, 20).path.rename(store.folder / "00000030")
    assert damaged(store)[0].endswith("00000030' holds version 20: expected 30, as its name says")


def reseal(path: Path, **changes: Any) -> None:
    document = unseal(path.read_bytes())
    assert isinstance(document, dict)
    path.write_bytes(seal({**document, **changes}))


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"format": 2}, "has format 2: this paceline reads 1"),
        ({"files": {}}, "is no checkpoint's"),
        ({"files": {WEIGHTS: {"bytes": "8", "crc32c": 1}}}, "is no checkpoint's"),
        ({"version": "20"}, "is no checkpoint's"),
        ({"saved_at": "today"}, "is no checkpoint's"),
    ],
)
def test_a_manifest_with_the_right_checksum_and_wrong_content_is_a_fault(
    store: CheckpointStore, changes: dict[str, Any], wrong: str
) -> None:
    reseal(save(store, 20).path / MANIFEST, **changes)
    assert wrong in damaged(store)[0]


@pytest.mark.parametrize(
    ("tree", "wrong"),
    [
        ({"dict": []}, "does not fit state.safetensors: packed state has no place for tensor"),
        ({"pickle": "..."}, "packed state is an object of 1: expected one of"),
    ],
)
def test_a_state_that_does_not_fit_its_tensors_is_not_loaded(store: CheckpointStore, tree: Any, wrong: str) -> None:
    reseal(save(store, 20).path / MANIFEST, state=tree)
    with pytest.raises(CheckpointError, match=wrong):
        store.load(20)


def test_the_newest_that_is_whole_and_usable_is_found_and_those_passed_over_are_told(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints", keep=4)
    for version in (20, 40, 60, 80):
        save(store, version)
    (store.folder / "00000060" / STATE).unlink()
    path = store.folder / "00000040" / WEIGHTS
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    loaded, passed = store.newest(lambda version: version < 80)
    assert loaded is not None
    assert loaded.version == 20
    assert [version for version, _ in passed] == [80, 60, 40]
    assert passed[0][1] == "the run cannot go on from it: its ledger lacks rounds before it"
    assert "cannot be read: No such file" in passed[1][1]
    assert "with checksum" in passed[2][1]
    assert store.newest(lambda version: False)[0] is None


def test_there_is_no_newest_where_there_are_none(tmp_path: Path) -> None:
    assert CheckpointReader(tmp_path / "none").newest(lambda version: True) == (None, [])
    with pytest.raises(CheckpointError, match="has no checkpoint of version 7: there are none"):
        CheckpointReader(tmp_path / "none").load(7)
