"""The settings of `paceline.train` are those of `paceline run`, by their names there."""

from __future__ import annotations

from pathlib import Path

import pytest

from paceline.api.arguments import run_command
from paceline.cli.configuration import FILE_NAME
from paceline.errors import SettingsError, UsageError


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_values_come_as_python_has_them() -> None:
    command = run_command(
        {
            "job": "a.py:A", "data": Path("data"), "workers": 3, "pace": [1, 2, 4], "grace": "1m",
            "json": Path("o.json"), "delay": ("exp:0.01",), "log": ["csv", "mlflow"],
            "rounds": None, "means": {"w1": 0.1}, "policy": "fixed",
        }
    )  # fmt: skip
    assert command.pace == (1.0, 2.0, 4.0)
    assert command.data == Path("data")
    assert command.grace_s == 60.0
    assert command.json_file == Path("o.json")
    assert command.delay == ("exp:0.01",)
    assert command.log == ("csv", "mlflow")
    assert command.means_s == {"w1": 0.1}
    assert command.rounds is None


def test_an_argument_goes_before_environment_and_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / FILE_NAME).write_text("[run]\ntasks = 5\nseed = 5\nworkers = 5\n")
    monkeypatch.setenv("PACELINE_TASKS", "6")
    monkeypatch.setenv("PACELINE_SEED", "6")
    command = run_command({"job": "a.py:A", "tasks": 7})
    assert (command.tasks, command.seed, command.workers) == (7, 6, 5)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"job": "a.py:A", "microbatch": 8}, r"train\(\) has no setting 'microbatch' \(did you mean micro_batch\?\)"),
        ({"job": "a.py:A", "bind": "0.0.0.0:1"}, r"train\(\) has no setting 'bind'"),
        ({"job": "a.py:A", "micro_batch": 0}, "^micro_batch is 0: expected a whole number, at least 1"),
        ({"job": "a.py:A", "policy": "greed"}, "^policy is 'greed'.*did you mean greedy"),
        ({"job": "a.py:A", "log": "tensorbord"}, "^log is 'tensorbord'.*did you mean tensorboard"),
        ({"job": "a.py:A", "data": 3}, "^data is 3"),
        ({"rounds": 3}, "JOB is missing"),
    ],
)
def test_what_is_wrong_is_said_by_its_name(given: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        run_command(given)


def test_settings_that_contradict_each_other_are_said() -> None:
    with pytest.raises(SettingsError, match="policy fixed needs"):
        run_command({"job": "a.py:A", "policy": "fixed"})
