"""The commands that the examples' first lines show, shortened, on real workers."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest

from examples.token_file import pack
from tests.system.cluster import paceline

pytestmark = [pytest.mark.slow, pytest.mark.system]

FLAGS = ("--workers", "2", "--tasks", "4", "--micro-batch", "8", "--rounds", "4")


def test_a_memory_mapped_file_is_trained_on(tmp_path: Path) -> None:
    pack(tmp_path, sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))[:10])
    done = paceline(
        "run", "examples/token_file.py:ByteModel", "--data", str(tmp_path), *FLAGS, "--run-dir", str(tmp_path / "run")
    )
    assert done.returncode == 0, done.stderr
    assert "bits_per_byte" in done.stdout


def test_a_table_is_trained_on(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    for name, count in (("train", 100), ("test", 20)):
        lines = [f"{number},{'ab'[number % 2]},{2 * number}" for number in range(count)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["x,kind,y", *lines]))
    done = paceline(
        "run", "examples/table.py:Table", "--data", str(tmp_path), *FLAGS, "--run-dir", str(tmp_path / "run")
    )
    assert done.returncode == 0, done.stderr
    assert "r2" in done.stdout
