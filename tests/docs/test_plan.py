"""docs/plan.md: its commands are run, and say what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.test_readme import BLOCK, README, ROOT, run

pytest.importorskip("numba")
PAGE = (ROOT / "docs" / "plan.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.system
def test_the_commands_say_what_is_said(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    blocks = {found["mark"]: found["text"] for found in BLOCK.finditer(README)}
    (tmp_path / "my_job.py").write_text(blocks["file: my_job.py"])
    rows = "import numpy, sklearn.datasets as d; x, y = d.load_iris(return_X_y=True)"
    (tmp_path / "data").mkdir()
    run(f"python -c \"{rows}; numpy.savetxt('data/rows.csv', numpy.c_[x, y], delimiter=',')\"", tmp_path)
    commands = [line for found in BLOCK.finditer(PAGE) for line in found["text"].splitlines()]
    assert len(commands) == 4
    said = [run(command, tmp_path) for command in commands]
    assert said[0].startswith("Use w1 alone")
    for words in re.findall(r'"(Use paceline [^"]*)"', PAGE.replace("\n", " ")):
        for part in words.split(" ... "):
            assert part.rstrip(".") in said[1].replace("\n", " ")
    assert (tmp_path / "figures" / "plan.png").is_file()
