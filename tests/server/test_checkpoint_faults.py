"""A process that dies and a disk that fails leave whole checkpoints only."""

from __future__ import annotations

import errno
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

import pytest

from paceline.errors import CheckpointError
from paceline.server.checkpoint_files import STATE
from paceline.server.checkpoints import CheckpointReader, CheckpointStore
from paceline.server.durable import checksum
from tests.server.checkpointed import assert_whole, names, save, state_of, weights_of

ROOT = Path(__file__).resolve().parents[2]


# ---- processes that die


# Imports once, and forks for every line that it reads: a process that saves until it is killed.
SAVERS = """
import os, sys
from pathlib import Path
from paceline.server.checkpoints import CheckpointStore
from tests.server.checkpointed import save

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
