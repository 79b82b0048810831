"""A checkpoint is there whole or not at all, whatever happens to the process, the disk or the files."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import pytest
import torch
from safetensors.torch import load_file

from paceline.errors import CheckpointError
from paceline.server import checkpoint_files
from paceline.server.checkpoint_files import MANIFEST, STATE, WEIGHTS
from paceline.server.checkpoints import CheckpointReader, CheckpointStore
from paceline.server.durable import checksum, seal, sync, unseal
from paceline.version import __version__

ROOT = Path(__file__).resolve().parents[2]


def weights_of(version: int, numel: int = 64) -> dict[str, torch.Tensor]:
    base = torch.arange(2 * numel, dtype=torch.float32) + version
    # Views of one memory, as those of a FlatModel are.
    return {"layer.weight": base[:numel].reshape(8, -1), "layer.bias": base[numel:]}


def state_of(version: int) -> dict[str, object]:
    optimizer = {"state": {0: {"step": torch.tensor(float(version)), "exp_avg": torch.full((5,), version / 7)}}}
    return {"optimizer": optimizer, "scheduler": None, "best": float("inf"), "betas": (0.9, 0.99)}


def save(store: CheckpointStore, version: int, **more: Any) -> Any:
    return store.save(version, weights_of(version), state_of(version), {"ledger_row": version * 3}, **more)


def assert_whole(store: CheckpointReader, version: int) -> None:
    loaded = store.load(version)
    assert loaded.version == version
    assert loaded.content == {"ledger_row": version * 3}
    assert {name: tensor.tolist() for name, tensor in loaded.weights.items()} == {
        name: tensor.tolist() for name, tensor in weights_of(version).items()
    }
    assert str(loaded.state) == str(state_of(version))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "run" / "checkpoints", keep=2)


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


# ---- processes that die


# Imports once, and forks for every line that it reads: a process that saves until it is killed.
SAVERS = """
import os, sys
from pathlib import Path
from paceline.server.checkpoints import CheckpointStore
from tests.server.test_checkpoints import save

def save_for_ever(folder, first):
    store = CheckpointStore(folder, keep=2)
    for version in range(first, 1_000_000):
        for _ in range(2 if version % 3 == 0 else 1):  # twice: one of the same version is replaced
            save(store, version)
            os.write(1, b"%d\\n" % version)  # whole or not at all, as print is not

for line in sys.stdin:
    saver = os.fork()
    if saver == 0:
        print(os.getpid(), flush=True)
        save_for_ever(Path(sys.argv[1]), int(line))
    os.waitpid(saver, 0)
    print("gone", flush=True)
"""


def kill_one(savers: subprocess.Popen[str], first: int, chance: random.Random) -> int:
    """Let a process save from a version on, kill it, and give the last version that it told."""
    assert savers.stdin is not None
    assert savers.stdout is not None
    savers.stdin.write(f"{first}\n")
    savers.stdin.flush()
    pid = int(savers.stdout.readline())
    told = [int(savers.stdout.readline()) for _ in range(chance.randint(1, 4))]
    time.sleep(chance.uniform(0.0, 0.01))  # the random moment: nothing is waited for
    os.kill(pid, signal.SIGKILL)
    while (line := savers.stdout.readline()) != "gone\n":
        told.append(int(line))
    return told[-1]


def test_a_process_killed_while_saving_leaves_whole_checkpoints_only(tmp_path: Path) -> None:
    folder, chance, version, amid = tmp_path / "checkpoints", random.Random(8), 0, 0
    command = [sys.executable, "-c", SAVERS, str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as savers:
        for _ in range(30):
            told = kill_one(savers, version + 1, chance)
            amid += any(not name.isdigit() for name in names(folder))
            reader = CheckpointReader(folder)
            infos = reader.list()
            assert infos[0].version >= told, "one that was told to be there"
            assert [(info.fault, reader.verify(info)) for info in infos] == [("", "")] * len(infos)
            assert_whole(reader, infos[0].version)
            version = infos[0].version
    assert amid >= 5, "hardly one was killed in the middle"
    CheckpointStore(folder, keep=2)
    assert all(name.isdigit() for name in names(folder))


def test_a_new_writer_removes_what_was_left_over(store: CheckpointStore) -> None:
    save(store, 20)
    shutil.copytree(store.folder / "00000020", store.folder / ".tmp-00000040-abc")
    CheckpointStore(store.folder, keep=2)
    assert names(store.folder) == ["00000020"]


def test_a_reader_removes_nothing(store: CheckpointStore) -> None:
    (store.folder / ".tmp-00000040-abc").mkdir()
    assert CheckpointReader(store.folder).list() == []
    assert names(store.folder) == [".tmp-00000040-abc"]


def test_a_reader_sees_whole_ones_only_while_a_writer_saves_replaces_and_removes(store: CheckpointStore) -> None:
    save(store, 1)
    reader, looks = CheckpointReader(store.folder), 0

    def write() -> None:
        for version in range(2, 150):
            for _ in range(2):
                save(store, version)

    seen: set[str] = set()
    writer = threading.Thread(target=write)
    writer.start()
    while writer.is_alive():
        infos = reader.list()
        seen.update([] if infos else ["none at all"], reader.foreign())
        seen.update(fault for info in infos for fault in (info.fault, reader.verify(info)) if fault)
        looks += 1
    writer.join()
    assert not seen
    assert looks > 20


def test_one_that_was_set_aside_counts_until_the_new_one_is_there(store: CheckpointStore) -> None:
    save(store, 20)
    (store.folder / "00000020").rename(store.folder / "00000020.old")  # and then the process died
    assert_whole(CheckpointReader(store.folder), 20)
    CheckpointStore(store.folder, keep=2)
    assert names(store.folder) == ["00000020"]


def test_one_that_was_set_aside_goes_when_the_new_one_is_there(store: CheckpointStore) -> None:
    save(store, 20)
    shutil.copytree(store.folder / "00000020", store.folder / "00000020.old")
    assert [info.path.name for info in store.list()] == ["00000020"]
    save(store, 40)
    assert names(store.folder) == ["00000020", "00000040"]


# ---- disks that fail


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("needs root: a small file system is mounted")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_told_and_leaves_the_old_ones_as_they_were(small_disk: Path) -> None:
    store = CheckpointStore(small_disk / "checkpoints", keep=2)
    save(store, 20)
    before = checksum(store.folder / "00000020" / STATE)
    for numel in (1 << 18, (1 << 17) - 2400):  # the weights do not fit; the files after them do not
        with pytest.raises(CheckpointError, match=r"00000040' cannot be written: .*No space left on device"):
            store.save(40, weights_of(40, numel), state_of(40), None)
        assert names(store.folder) == ["00000020"]
    assert_whole(store, 20)
    assert checksum(store.folder / "00000020" / STATE) == before
    save(store, 40)  # there is room for this one
    assert [info.version for info in store.list()] == [40, 20]


def fill(descriptor: int) -> None:
    while True:
        os.write(descriptor, bytes(4096))


def test_a_disk_without_a_single_byte_left_is_told_too(small_disk: Path) -> None:
    store = CheckpointStore(small_disk / "checkpoints", keep=2)
    save(store, 20)
    filler = os.open(small_disk / "filler", os.O_CREAT | os.O_WRONLY)
    with pytest.raises(OSError, match="No space"):
        fill(filler)
    os.close(filler)
    with pytest.raises(CheckpointError, match="No space left on device"):
        save(store, 40)
    (small_disk / "filler").unlink()
    assert_whole(store, 20)
    save(store, 40)


@pytest.mark.parametrize("failing", range(6))
def test_a_disk_that_fails_to_sync_is_told_and_leaves_the_old_ones(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    save(store, 20)
    real, calls = os.fsync, iter(range(100))

    def fsync(descriptor: int) -> None:
        if next(calls) == failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    if failing < 4:  # weights, state, manifest, their names
        with pytest.raises(CheckpointError, match="00000040' cannot be written: Input/output error"):
            save(store, 40)
        assert names(store.folder) == ["00000020"]
    elif failing == 4:  # the name: whether it will be there after a power cut is not known
        with pytest.raises(CheckpointError, match="Input/output error"):
            save(store, 40)
    else:
        assert save(store, 40).remark == ""
    assert_whole(store, 20)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(CheckpointError, match=r"checkpoints' cannot be written: File exists"):
        CheckpointStore(tmp_path / "checkpoints", keep=2)


def test_one_that_is_saved_though_old_ones_stay_says_so(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in (20, 40):
        save(store, version)

    def refuse(path: Path) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(shutil, "rmtree", refuse)
    saved = save(store, 60)
    assert saved.remark.endswith("cannot be removed: Operation not permitted")
    monkeypatch.undo()
    assert_whole(store, 60)
    save(store, 80)
    assert names(store.folder) == ["00000060", "00000080"]


# ---- damage


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
