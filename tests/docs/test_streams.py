"""docs/streams.md: its job, its index and its commands are run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.test_readme import BLOCK, ROOT, run


@pytest.mark.slow
@pytest.mark.system
def test_lines_of_shards_are_learnt_as_shown(tmp_path: Path) -> None:
    said = ""
    for found in BLOCK.finditer((ROOT / "docs" / "streams.md").read_text(encoding="utf-8")):
        mark = found["mark"] or ""
        if mark.startswith("file: "):
            (tmp_path / mark.removeprefix("file: ")).write_text(found["text"])
        else:
            assert mark == "run"
            said += "".join(run(line, tmp_path) for line in found["text"].splitlines())
    assert "6 shards" in said
    assert "bit-equal: 20 rounds" in said
