"""docs/python.md: its files and commands are run, and its tables are those of the code."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

import paceline
from paceline.api.result import ROUND_COLUMNS
from paceline.loggers import LOGGERS
from tests.docs.test_readme import BLOCK, ROOT, run

PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.system
def test_scripts_and_commands_work_as_shown(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("tensorboard")
    said = ""
    for found in BLOCK.finditer(PAGE):
        mark = found["mark"] or ""
        if mark.startswith("file: "):
            (tmp_path / mark.removeprefix("file: ")).write_text(found["text"])
        elif found["language"] == "sh":
            assert mark == "run"
            said += "".join(run(line, tmp_path) for line in found["text"].splitlines())
    assert re.search(r"^Result\(done: 40 rounds are done; 40 rounds, loss ", said, re.MULTILINE)
    assert re.search(r"^tensor\(\[\d\]\)$", said, re.MULTILINE)
    assert "flowers-model: README.md, model.safetensors; fingerprint " in said
    assert "begins after round 0 in runs/watched" in said
    assert said.count("w1 ready ") == 1
    with (tmp_path / "runs/watched/csv/rounds.csv").open(newline="") as file:
        assert [row["round"] for row in csv.DictReader(file)] == ["1", "2", "3"]


def test_tables_and_links_are_right() -> None:
    table = PAGE.split("## Loggers")[1]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(LOGGERS)
    row = next(line for line in PAGE.splitlines() if line.startswith("| `history` |"))
    assert tuple(re.findall(r"`(\w+)`", row)[1:]) == ROUND_COLUMNS
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
    named = set(re.findall(r"`paceline\.(\w+)`", PAGE)) - {"toml"}
    assert named == {"train", "Result"}
    assert named | set(re.findall(r"paceline\.(\w+)\(", PAGE)) <= set(paceline.__all__)
