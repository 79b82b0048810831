"""docs/check.md and docs/init.md: their commands are run, and their tables are those of the code."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from paceline.cli.init import TEMPLATES, render
from tests.docs.test_readme import BLOCK, ROOT, run

CHECK, INIT = ((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("check.md", "init.md"))


def commands(page: str) -> str:
    (block,) = BLOCK.finditer(page)
    assert (block["mark"], block["language"]) == ("run", "sh")
    return block["text"]


def test_check_works_as_shown_and_its_tables_name_every_line_and_field(tmp_path: Path) -> None:
    said = run(commands(CHECK).strip().replace("\n", " && "), tmp_path)
    shown, fields = CHECK.split("## Where the advice")[0], CHECK.split("## `--json FILE`")[1]
    labels = {line.split("  ")[0] for line in said[said.index("job  ") :].splitlines()}
    assert labels - {"", "job"} == set(re.findall(r"^\| `([a-z ]+)` \|", shown, re.MULTILINE))
    document = json.loads((tmp_path / "my_project/check.json").read_text())
    named = [
        name for row in re.findall(r"^\| (`[^|]+) \|", fields, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    ]
    assert sorted(named) == sorted(document)


@pytest.mark.slow
@pytest.mark.system
def test_init_works_as_shown(tmp_path: Path) -> None:
    assert " accuracy 0.99" in run(commands(INIT).strip().replace("\n", " && "), tmp_path)


def test_the_tables_of_init_name_every_template_and_file() -> None:
    assert re.findall(r"^\| `([a-z-]+)`.* \|", INIT.split("<!--")[0], re.MULTILINE)[1:] == list(TEMPLATES)
    named = {
        name for row in re.findall(r"^\| (`[^|]+) \|", INIT, re.MULTILINE) for name in re.findall(r"`([^`]+)`", row)
    }
    files = {file for template in TEMPLATES.values() for file in render(template, "x")}
    assert files - named == {"write.py"}
