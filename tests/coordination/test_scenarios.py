"""Readable scenarios through the real machine; ``pytest tests/coordination --rewrite`` writes their outcomes anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.coordination.script import play

SCENARIOS = sorted((Path(__file__).parent / "scenarios").glob("*.txt"))


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario_ends_as_written(path: Path, request: pytest.FixtureRequest) -> None:
    written = path.read_text()
    played = play(written)
    if request.config.getoption("--rewrite", default=False):
        path.write_text(played)
    assert played == written, f"{path.name} has another outcome now: see --rewrite"


def test_there_are_scenarios() -> None:
    assert len(SCENARIOS) >= 6
