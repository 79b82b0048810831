"""docs/evaluation.md: its job and commands are run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from paceline.coordination.policies import ASYNCHRONOUS
from tests.docs.test_readme import BLOCK, ROOT, run

PAGE = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.system
def test_the_job_is_measured_by_its_workers_as_shown(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    said = ""
    for found in BLOCK.finditer(PAGE):
        mark = found["mark"] or ""
        if mark.startswith("file: "):
            (tmp_path / mark.removeprefix("file: ")).write_text(found["text"])
        else:
            assert mark == "run"
            said += "".join(run(line, tmp_path) for line in found["text"].splitlines())
    assert re.search(r"60 rounds in .*, accuracy [\d.e-]+, loss [\d.e-]+, error [\d.e-]+", said)
    assert "bit-equal: 60 rounds" in said
    assert (tmp_path / "runs/measured/best.json").is_file()


def test_the_asynchronous_policies_are_those_named() -> None:
    named = PAGE.split("Asynchronous policies (")[1].split(")")[0]
    assert set(re.findall(r"`([\w-]+)`", named)) == set(ASYNCHRONOUS)
