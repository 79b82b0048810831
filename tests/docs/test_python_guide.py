"""The script that docs/python.md shows trains the README's job."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.test_readme import BLOCK, ROOT, environment, marked, run

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

GUIDE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")


def test_the_script_trains_and_gives_the_model(tmp_path: Path) -> None:
    (script,) = [found["text"] for found in BLOCK.finditer(GUIDE) if found["mark"] == "file: train.py"]
    (tmp_path / "train.py").write_text(script)
    (job,) = marked("file: my_job.py")
    (tmp_path / "my_job.py").write_text(job.text)
    made = [line for block in marked("run") for line in block.lines if "mkdir" in line or "savetxt" in line]
    for line in made:
        run(line, tmp_path)
    done = subprocess.run(
        [sys.executable, "train.py"], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()
    assert [line.split(":")[0] for line in told[:3]] == ["round 20", "round 40", "round 60"]
    assert told[3].startswith("done {'accuracy': ")
    assert "Linear(in_features=4, out_features=32" in done.stdout
