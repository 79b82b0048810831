"""The best model and what is said of it always belong together, or the damage is told."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from paceline.errors import CheckpointError
from paceline.server.best import BEST, BEST_MARK, Best, read_best, save_best
from paceline.server.durable import seal, unseal


def best_of(version: int) -> Best:
    return Best(version=version, metric="accuracy", value=version / 100, fingerprint=f"{version:012x}")


def weights_of(version: int) -> dict[str, torch.Tensor]:
    return {"weight": torch.full((4, 3), float(version))}


def save(run: Path, version: int) -> None:
    save_best(run, best_of(version), weights_of(version))


def assert_best(run: Path, version: int) -> None:
    assert read_best(run) == best_of(version)
    assert torch.equal(load_file(run / BEST)["weight"], weights_of(version)["weight"])


def test_the_last_that_was_saved_is_the_best(tmp_path: Path) -> None:
    for version in (20, 40, 60):
        save(tmp_path, version)
        assert_best(tmp_path, version)
    assert sorted(path.name for path in tmp_path.iterdir()) == [BEST_MARK, BEST]


def test_there_is_none_before_the_first(tmp_path: Path) -> None:
    assert read_best(tmp_path) is None


class DiedError(BaseException):
    """In place of kill -9: nothing that handles errors sees it."""


def die_at(monkeypatch: pytest.MonkeyPatch, step: int, error: BaseException) -> None:
    """Let the disk's calls raise from a given one on: those that sync, replace and remove."""
    calls = iter(range(100))
    for owner, name in ((os, "fsync"), (Path, "replace"), (Path, "unlink")):
        monkeypatch.setattr(owner, name, _dying(getattr(owner, name), calls, step, error))


def _dying(real: Any, calls: Any, step: int, error: BaseException) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        if next(calls) >= step:
            raise error
        return real(*args, **kwargs)

    return call


# sync weights, unlink and sync the mark, replace it, sync the folder, replace the weights, sync the folder
STEPS = 7


@pytest.mark.parametrize("step", range(STEPS))
@pytest.mark.parametrize("before", [None, 20])
def test_wherever_the_process_dies_the_pair_is_the_old_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, before: int | None
) -> None:
    if before is not None:
        save(tmp_path, before)
    die_at(monkeypatch, step, DiedError())
    with pytest.raises(DiedError):
        save(tmp_path, 40)
    monkeypatch.undo()
    if step == STEPS - 1:
        assert_best(tmp_path, 40)
    elif before is None:
        assert read_best(tmp_path) is None
    else:
        assert_best(tmp_path, before)
    for version in (60, 80):
        save(tmp_path, version)
        assert_best(tmp_path, version)
    assert sorted(path.name for path in tmp_path.iterdir()) == [BEST_MARK, BEST]


def test_the_steps_are_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    die_at(monkeypatch, STEPS, DiedError())
    save(tmp_path, 20)


def test_one_that_died_twice_between_the_files_leaves_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 20)
    for version in (40, 60):
        die_at(monkeypatch, STEPS - 2, DiedError())
        with pytest.raises(DiedError):
            save(tmp_path, version)
        monkeypatch.undo()
        assert_best(tmp_path, 20)


def test_a_disk_that_fails_is_told_and_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 20)

    def fsync(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(CheckpointError, match=r"best.safetensors' cannot be written: No space left on device"):
        save(tmp_path, 40)
    assert_best(tmp_path, 20)
    assert sorted(path.name for path in tmp_path.iterdir()) == [BEST_MARK, BEST]


@pytest.mark.parametrize("name", [BEST, BEST_MARK])
def test_every_flipped_bit_and_every_truncation_is_found(tmp_path: Path, name: str) -> None:
    save(tmp_path, 20)
    path = tmp_path / name
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        with pytest.raises(CheckpointError, match=name):
            read_best(tmp_path)
    for length in (0, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=name):
            read_best(tmp_path)
    save(tmp_path, 40)  # and the next one mends it
    assert_best(tmp_path, 40)


def test_weights_that_nothing_is_said_of_are_told(tmp_path: Path) -> None:
    save(tmp_path, 20)
    (tmp_path / BEST_MARK).unlink()
    with pytest.raises(CheckpointError, match=r"expected its best\.json"):
        read_best(tmp_path)


@pytest.mark.parametrize(
    "changes", [{"format": 2}, {"version": "20"}, {"value": "good"}, {"previous": 3}, {"bytes": None}]
)
def test_a_mark_with_the_right_checksum_and_wrong_content_is_told(tmp_path: Path, changes: dict[str, Any]) -> None:
    save(tmp_path, 20)
    document = unseal((tmp_path / BEST_MARK).read_bytes())
    assert isinstance(document, dict)
    (tmp_path / BEST_MARK).write_bytes(seal({**document, **changes}))
    with pytest.raises(CheckpointError, match=r"best\.json"):
        read_best(tmp_path)


def test_weights_that_are_gone_are_told(tmp_path: Path) -> None:
    for version in (20, 40):
        save(tmp_path, version)
    (tmp_path / BEST).unlink()
    with pytest.raises(CheckpointError, match=r"best\.safetensors' cannot be read: No such file"):
        read_best(tmp_path)
