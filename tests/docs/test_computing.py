"""docs/computing.md: its commands are run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.test_readme import BLOCK, ROOT, run


@pytest.mark.slow
@pytest.mark.system
def test_the_commands_do_what_is_said(tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    page = (ROOT / "docs" / "computing.md").read_text(encoding="utf-8")
    commands = [line for found in BLOCK.finditer(page) for line in found["text"].splitlines()]
    assert len(commands) == 3
    said = "".join(run(command, tmp_path) for command in commands)
    assert "bit-equal: 6 rounds" in said
