"""docs/security.md: its commands are run, and its figures are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from paceline.certificates import FILES
from paceline.protos.framing import STREAMS_PER_CONNECTION
from paceline.server import failures, sessions, transfer, waiting
from tests.docs.test_readme import BLOCK, ROOT, run

PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")


@pytest.mark.system
def test_the_commands_work_as_shown(tmp_path: Path) -> None:
    said = "".join(
        run(line, tmp_path) for found in BLOCK.finditer(PAGE) for line in found["text"].splitlines() if line.strip()
    )
    assert sorted(path.name for path in (tmp_path / "tls").iterdir()) == sorted(FILES)
    assert re.search(r"revoked token [0-9a-f]{12} of w1, role worker", said)
    assert all(found["mark"] == "run" for found in BLOCK.finditer(PAGE))


def test_links_lead_to_files() -> None:
    for page in ("docs/security.md", "SECURITY.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text()):
            assert (ROOT / page).parent.joinpath(target).exists(), target
    for path in re.findall(r"`(tests/[\w/.]+)`", PAGE):
        assert (ROOT / path).is_file(), path


def test_the_figures_are_those_of_the_code() -> None:
    words = " ".join(PAGE.split())
    assert f"it has {sessions.HELLO_LIMIT_S:g} seconds" in words
    assert transfer.ATTACH_LIMIT_S == sessions.HELLO_LIMIT_S
    assert f"at most {sessions.HELLO_BYTES // 1024} KB" in words
    assert f"one of {waiting.PER_ADDRESS} seats" in words
    assert f"{waiting.IN_ALL:,} in all" in words
    assert f"a connection {STREAMS_PER_CONNECTION} streams" in words
    assert (failures.FAILURES, failures.WINDOW_S) == (10, 60.0)
