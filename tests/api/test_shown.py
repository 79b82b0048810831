"""In a notebook a run is one output that is drawn anew; where nothing is wanted, nothing is shown."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

from paceline.api.shown import NotebookProgress, make_shown

STATUS: dict[str, Any] = {
    "state": "training", "situation": "", "version": 3, "rounds": 10, "loss": 0.5, "metrics": {"accuracy": 0.9},
    "workers": [{"name": "w<1>", "state": "busy", "mean_task_s": None, "radius_s": None, "allocation": 1,
                 "tasks_done": 0, "data_share": 0.0, "note": ""}],
}  # fmt: skip


class Display(ModuleType):
    """As much of IPython.display as is used: outputs below a cell, each with what it shows now."""

    def __init__(self) -> None:
        super().__init__("IPython.display")
        self.outputs: list[list[str]] = []

    def HTML(self, text: str) -> str:  # noqa: N802
        return text

    def display(self, shown: str, *, display_id: bool) -> Any:
        assert display_id
        self.outputs.append([shown])
        output, content = ModuleType("output"), self.outputs[-1]
        output.update = content.append  # type: ignore[attr-defined]
        return output


def test_one_output_is_drawn_anew_with_its_notes_above(monkeypatch: pytest.MonkeyPatch) -> None:
    display = Display()
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    progress = NotebookProgress()
    progress.show(STATUS)
    progress.note("done & saved")
    progress.close()
    ((*_, before, last),) = display.outputs
    assert "round 3 of 10" in before
    assert "w&lt;1&gt;  busy" in before
    assert last.index("done &amp; saved") < last.index("round 3 of 10")


def test_what_is_not_wanted_is_not_shown(capfd: pytest.CaptureFixture[str]) -> None:
    progress = make_shown(False)
    progress.show(STATUS)
    progress.note("a line")
    progress.close()
    assert capfd.readouterr() == ("", "")
