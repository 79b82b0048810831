"""The job of the README's first section, and data that it can be trained on."""

from __future__ import annotations

from pathlib import Path

from tests.docs.test_readme import BLOCK, README


def write_flowers(folder: Path) -> None:
    """Write my_job.py and data/rows.csv into a folder."""
    (folder / "my_job.py").write_text(next(m["text"] for m in BLOCK.finditer(README) if m["mark"] == "file: my_job.py"))
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "rows.csv").write_text("\n".join(f"{n},{n % 7},{n % 5},{n % 3},{n % 3}" for n in range(90)))
