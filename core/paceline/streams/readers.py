"""Opens a shard: tar files as WebDataset has them, lines of text, rows of parquet. Each is a map-style dataset."""

from __future__ import annotations

import mmap
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from paceline.errors import UsageError
from paceline.extras import needed


class TarSamples:
    """The samples of a tar file: neighbouring members of one name, told apart by what follows its first dot.

    `a/7.jpg` and `a/7.cls` are one sample, `{"__key__": "a/7", "jpg": b"...", "cls": b"..."}`, as in WebDataset. Bytes
    are read when a sample is asked for.

    Raises:
        UsageError: it is compressed, so that no sample could be read without all before it.
        tarfile.ReadError: it is no tar file.
    """

    def __init__(self, path: Path) -> None:
        self._data = _mapped(path)
        if bytes(self._data[:2]) == b"\x1f\x8b" or path.suffix in (".gz", ".bz2", ".xz", ".zst"):
            raise UsageError(f"{path.name} is compressed: expected a plain tar file, whose samples are read one by one")
        self._samples: list[tuple[str, list[tuple[str, int, int]]]] = []
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                if member.isfile():
                    self._add(member)

    def __len__(self) -> int:
        """Say how many samples there are."""
        return len(self._samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Give one sample."""
        key, members = self._samples[index]
        sample: dict[str, Any] = {"__key__": key}
        for extension, offset, length in members:
            sample[extension] = self._data[offset : offset + length]
        return sample

    def _add(self, member: tarfile.TarInfo) -> None:
        folder, slash, name = member.name.rpartition("/")
        stem, _, extension = name.partition(".")
        key = f"{folder}{slash}{stem}"
        if not self._samples or self._samples[-1][0] != key:
            self._samples.append((key, []))
        self._samples[-1][1].append((extension, member.offset_data, member.size))


class Lines:
    """The lines of a text file in UTF-8, without their ends. Memory: 8 bytes a line; the text stays on the disk."""

    def __init__(self, path: Path) -> None:
        self._text = _mapped(path)
        starts, place = [0], self._text.find(b"\n")
        while place >= 0:
            starts.append(place + 1)
            place = self._text.find(b"\n", place + 1)
        if starts[-1] < len(self._text):
            starts.append(len(self._text) + 1)
        self._starts = np.array(starts, dtype=np.int64)

    def __len__(self) -> int:
        """Say how many lines there are."""
        return len(self._starts) - 1

    def __getitem__(self, index: int) -> str:
        """Give one line."""
        start, end = self._starts[index : index + 2].tolist()
        return self._text[start : end - 1].decode().removesuffix("\r")


class ParquetRows:
    """The rows of a parquet file, as dicts by column; needs the extra `parquet`. The file is read into memory.

    Args:
        columns: those that are read; None: all.
    """

    def __init__(self, path: Path, columns: Sequence[str] | None = None) -> None:
        parquet = needed("pyarrow.parquet", "parquet", "ParquetRows")
        self._table = parquet.read_table(path, columns=None if columns is None else list(columns), memory_map=True)

    def __len__(self) -> int:
        """Say how many rows there are."""
        return int(self._table.num_rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Give one row."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Give several rows, in order."""
        rows: list[dict[str, Any]] = self._table.take(list(indices)).to_pylist()
        return rows


def _mapped(path: Path) -> mmap.mmap | bytes:
    """Map a file; what it maps stays readable when the file is thrown out of the cache."""
    with path.open("rb") as file:
        empty = path.stat().st_size == 0  # and cannot be mapped
        return b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
