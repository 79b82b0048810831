"""Copies of shards on this machine: whole or not there, within their limit, made once, asked for again when cut off."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from paceline.streams import cache as cache_module
from paceline.streams.cache import ShardCache, ShardError


class Troubled(MemoryFileSystem):
    """Files in memory whose first openings fail, or break off."""

    protocol = "troubled"
    store: dict[str, Any] = {}
    pseudo_dirs = [""]
    failing = 0
    cut_at: int | None = None
    opened = 0

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("troubled://").strip("/")

    def _open(self, path: str, *args: Any, **kwargs: Any) -> Any:
        file = super()._open(path, *args, **kwargs)
        if kwargs.get("mode", args[0] if args else "rb") == "rb":
            cls = type(self)
            cls.opened += 1
            if cls.failing:
                cls.failing -= 1
                if cls.cut_at is None:
                    raise ConnectionError("gone away")
                return CutOff(file, cls.cut_at)
        return file


class CutOff:
    """A file that ends too early, as a broken connection does."""

    def __init__(self, file: Any, length: int) -> None:
        self._file, self._left = file, length

    def __enter__(self) -> CutOff:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()

    def read(self, length: int) -> bytes:
        piece: bytes = self._file.read(min(length, self._left))
        self._left -= len(piece)
        return piece


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Troubled:
    fsspec.register_implementation("troubled", Troubled, clobber=True)
    monkeypatch.setattr(cache_module, "FIRST_PAUSE_S", 0.001)
    Troubled.store.clear()
    Troubled.failing, Troubled.cut_at, Troubled.opened = 0, None, 0
    return Troubled()


def put(files: Troubled, name: str, length: int) -> str:
    files.pipe_file(f"/{name}", name[-1].encode() * length)
    return f"troubled://{name}"


def names(folder: Path) -> list[str]:
    return sorted(path.name.partition("-")[2] for path in folder.iterdir() if path.suffix != ".lock")


def test_a_shard_is_copied_once_and_found_again(tmp_path: Path, files: Troubled) -> None:
    url = put(files, "a", 3_000_000)
    heard: list[int] = []
    cache = ShardCache(tmp_path / "cache", heard=heard.append)
    for _ in range(3):
        with cache.copy_of(url) as path:
            assert path.read_bytes() == b"a" * 3_000_000
    assert Troubled.opened == 1
    assert sum(heard) == 3_000_000
    assert len(heard) == 3, "in pieces, so that somebody can see that it goes on"


def test_two_threads_make_one_copy(tmp_path: Path, files: Troubled) -> None:
    url = put(files, "a", 3_000_000)
    threads = [threading.Thread(target=ShardCache(tmp_path).fetch, args=(url,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Troubled.opened == 1
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("cut_at", [None, 1_500_000])
def test_a_shard_that_cannot_be_reached_is_asked_for_again(tmp_path: Path, files: Troubled, cut_at: int | None) -> None:
    url = put(files, "a", 3_000_000)
    Troubled.failing, Troubled.cut_at = cache_module.ATTEMPTS - 1, cut_at
    with ShardCache(tmp_path).copy_of(url) as path:
        assert path.stat().st_size == 3_000_000
    assert Troubled.opened == cache_module.ATTEMPTS


def test_a_shard_that_stays_away_is_named_and_nothing_of_it_is_left(tmp_path: Path, files: Troubled) -> None:
    url = put(files, "a", 3_000_000)
    Troubled.failing, Troubled.cut_at = 99, 1_500_000
    with pytest.raises(ShardError, match=r"shard 'troubled://a' cannot be had \(5 attempts\): OSError: 1500000 of"):
        ShardCache(tmp_path).fetch(url)
    assert names(tmp_path) == []


def test_a_shard_that_is_not_there_is_asked_for_once(tmp_path: Path, files: Troubled) -> None:
    with pytest.raises(ShardError, match="shard 'troubled://none' cannot be had: FileNotFoundError"):
        ShardCache(tmp_path).fetch("troubled://none")
    assert Troubled.opened == 0


def test_an_unknown_kind_of_address_is_said(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="shard 'nowhere://a' cannot be had: ValueError: Protocol not known: nowhere"):
        ShardCache(tmp_path).fetch("nowhere://a")


def test_a_shard_of_another_length_than_the_index_says_is_refused(tmp_path: Path, files: Troubled) -> None:
    url = put(files, "a", 100)
    with pytest.raises(ShardError, match="shard 'troubled://a' has 100 bytes: expected 99, as the index says"):
        ShardCache(tmp_path).fetch(url, 99)


def test_copies_that_were_opened_longest_ago_make_room(tmp_path: Path, files: Troubled) -> None:
    cache = ShardCache(tmp_path, limit_bytes=250)
    for age, name in enumerate("ab"):
        with cache.copy_of(put(files, name, 100)) as path:
            pass
        os.utime(path, (1000 + age, 1000 + age))
    with cache.copy_of("troubled://a"):
        pass
    cache.fetch(put(files, "c", 100))
    assert names(tmp_path) == ["a", "c"]


def test_a_copy_that_somebody_opens_just_now_stays(tmp_path: Path, files: Troubled) -> None:
    cache = ShardCache(tmp_path, limit_bytes=150)
    with cache.copy_of(put(files, "a", 100)) as path:
        cache.fetch(put(files, "b", 100))
        assert path.read_bytes() == b"a" * 100
    assert names(tmp_path) == ["a", "b"]


def test_a_shard_that_is_larger_than_the_cache_is_refused(tmp_path: Path, files: Troubled) -> None:
    url = put(files, "a", 100)
    with pytest.raises(ShardError, match=r"has 100 bytes, but the cache .* may hold 99: expected a larger"):
        ShardCache(tmp_path, limit_bytes=99).fetch(url)


def test_what_a_killed_process_left_is_cleared_away(tmp_path: Path, files: Troubled) -> None:
    left = tmp_path / "00-x.part-999999999"
    left.write_bytes(b"half")
    ShardCache(tmp_path).fetch(put(files, "a", 100))
    assert not left.exists()


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path, files: Troubled) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ShardError, match=r"cache '.*file/cache' cannot be made: "):
        ShardCache(tmp_path / "file" / "cache").fetch(put(files, "a", 100))


def test_copies_that_are_in_use_stay_and_what_was_only_to_come_waits(tmp_path: Path, files: Troubled) -> None:
    cache = ShardCache(tmp_path, limit_bytes=250)
    for name in "ab":
        cache.fetch(put(files, name, 100))
    with pytest.raises(ShardError, match="shard 'troubled://c' has no room beside those that are in use"):
        cache.fetch(put(files, "c", 100), beside={"troubled://a", "troubled://b"})
    assert names(tmp_path) == ["a", "b"]
    cache.fetch("troubled://c", beside={"troubled://b"})
    assert names(tmp_path) == ["b", "c"]


def test_what_is_on_its_way_has_its_room(tmp_path: Path, files: Troubled) -> None:
    url, other = put(files, "a", 2_500_000), put(files, "b", 2_500_000)
    sizes: list[int] = []

    def heard(nbytes: int) -> None:
        # In the midst of the first copy another process looks for room.
        if not sizes:
            sizes.append(0)
            with pytest.raises(ShardError, match="no room beside"):
                ShardCache(tmp_path, limit_bytes=4_000_000).fetch(other, beside={url})
        sizes.append(sum(path.stat().st_size for path in tmp_path.iterdir()))

    ShardCache(tmp_path, limit_bytes=4_000_000, heard=heard).fetch(url)
    assert max(sizes) == 2_500_000
    assert names(tmp_path) == ["a"]
