"""docs/live-page.md: its commands are run, and what they make is there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.docs.flowers import write_flowers
from tests.docs.test_readme import BLOCK, ROOT, run

PAGE = (ROOT / "docs" / "live-page.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.system
def test_the_commands_make_a_report_of_two_runs(tmp_path: Path) -> None:
    blocks = {found["mark"]: found["text"] for found in BLOCK.finditer(PAGE)}
    write_flowers(tmp_path)
    for command in (*blocks["live"].splitlines(), *blocks["report"].splitlines()):
        # A fixed port may be taken here.
        run(command.replace("--web-port 8080", "--web-port 0"), tmp_path)
    documents = json.loads((tmp_path / "report.json").read_text())["runs"]
    assert [document["run"]["policy"] for document in documents] == ["ata-empirical", "uniform"]
    assert (tmp_path / "report.html").stat().st_size > 50_000
