"""docs/adapters.md: its commands are run, and what it names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.test_readme import BLOCK, ROOT, run

PAGE = (ROOT / "docs" / "adapters.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.system
@pytest.mark.timeout(300)
def test_commands_work_as_shown(tmp_path: Path) -> None:
    for library in ("lightning", "transformers", "sklearn"):
        pytest.importorskip(library)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    said = ""
    for found in BLOCK.finditer(PAGE):
        if found["language"] == "sh":
            assert found["mark"] == "run"
            said += "".join(run(line, tmp_path) for line in found["text"].splitlines())
    assert re.search(r"60 rounds in .*, val_accuracy 0\.\d+, val_loss ", said)
    assert re.search(r"20 rounds in .*, loss \d", said)
    assert {"config.json", "model.safetensors"} <= {path.name for path in (tmp_path / "gpt").iterdir()}


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
