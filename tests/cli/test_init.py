"""`paceline init` writes projects that train with the commands that they name."""

from __future__ import annotations

import errno
import os
import re
import sys
import tomllib
from pathlib import Path

import pytest

from paceline.cli.app import run_command_line
from paceline.cli.init import TEMPLATES, render, write_whole
from paceline.errors import UsageError
from tests.docs.test_readme import ROOT, run

BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)
COMMON = {"Dockerfile", ".dockerignore", ".gitignore", "README.md", "job.py", "paceline.toml", "requirements.txt"}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


def begin(template: str) -> Path:
    """Make a project, and go there."""
    assert run_command_line(["init", "my_Project", "--template", template]) == 0
    os.chdir("my_Project")
    return Path.cwd()


def blocks(readme: str) -> list[list[str]]:
    return [found.splitlines() for found in BLOCK.findall(readme)]


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_project_is_whole_and_filled_in(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    project = begin(name)
    files = {path.name: path.read_text(encoding="utf-8") for path in project.iterdir()}
    assert set(files) >= COMMON
    assert not [file for file, text in files.items() if "{{" in text or "}}" in text]
    assert files["README.md"].startswith("# my_Project\n")
    assert "docker build -t my-project ." in files["README.md"]
    tomllib.loads(files["paceline.toml"])
    # What it says, in the README and here, is the same.
    said = [line.strip() for line in capsys.readouterr().out.split("next:\n")[1].splitlines()]
    assert said[0] == "cd my_Project"
    assert blocks(files["README.md"])[0][: len(said) - 1] == said[1:]
    for secret in ("tls", "*.token", "tokens.json"):
        assert secret in files[".gitignore"]
        assert secret in files[".dockerignore"]
    # The image holds every module, and nothing is copied that is not there.
    assert re.findall(r"^COPY (.*)$", files["Dockerfile"], re.MULTILINE) == [
        "requirements.txt *.whl ./",
        "*.py paceline.toml ./",
    ]


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_commands_for_several_machines_are_right(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    project = begin(name)
    lines = [line for block in blocks((project / "README.md").read_text())[1:] for line in block]
    wanted = [line for line in lines if re.match(r"paceline (server|worker) ", line)]
    assert len(wanted) == 2
    for line in wanted:
        assert run_command_line([*line.split()[1:], "--print-config"]) == 0
    assert re.search(r"^micro-batch +\d+ +paceline\.toml", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.system
@pytest.mark.parametrize(
    ("name", "metric", "least", "most"),
    [
        ("vision", "accuracy", 0.9, 1.0),
        ("text", "bits_per_character", 0.5, 4.5),
        ("tabular", "r2", 0.95, 1.0),
        ("own-loop", "accuracy", 0.98, 1.0),
    ],
)
def test_it_trains_with_the_commands_that_its_readme_names(name: str, metric: str, least: float, most: float) -> None:
    if name == "vision":
        pytest.importorskip("PIL")
    project = begin(name)
    lines = [line for line in blocks((project / "README.md").read_text())[0] if not line.startswith("pip ")]
    said = {line: run(line, project) for line in lines}
    trained = next(text for line, text in said.items() if line.startswith("paceline run "))
    found = re.search(rf"rounds in .*\b{metric} ([\d.]+)", trained)
    assert found, trained
    assert least <= float(found[1]) <= most
    assert len([*project.glob("runs/*/model.safetensors")]) == 1
    checked = next(text for line, text in said.items() if line.startswith("paceline check "))
    assert "same bits   yes" in checked
    assert "note" not in checked
    if name == "own-loop":
        loop = re.findall(r"accuracy ([\d.]+)", said["python loop.py"])[-1]
        assert abs(float(loop) - float(found[1])) < 0.02


@pytest.mark.slow
def test_their_code_is_typed_and_tidy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As an installed package would be seen; mypy does not follow what the editable install does to the import path.
    folders = [str(ROOT / folder) for folder in ("core", "server", "worker", "protos", "cli")]
    monkeypatch.setenv("MYPYPATH", os.pathsep.join(folders))
    for name in TEMPLATES:
        write_whole(tmp_path / name, render(TEMPLATES[name], name))
        run("ruff check --isolated --line-length 120 --select E,F,B,UP .", tmp_path / name)
        files = " ".join(sorted(path.name for path in (tmp_path / name).glob("*.py")))
        flags = "--strict --ignore-missing-imports --explicit-package-bases --cache-dir ../cache"
        run(f"mypy {flags} {files}", tmp_path / name)


@pytest.mark.parametrize(
    ("name", "spoil", "told"),
    [
        ("vision", {}, "data/train has no class folders: put one folder of pictures there for each class"),
        ("vision", {"train/cat/": ""}, "data/train/cat is empty: put pictures of the class 'cat' there"),
        ("text", {}, "data has 0 *.txt files with 0 characters: put your texts there"),
        ("tabular", {}, "data/rows.csv does not exist: put your table there"),
        ("tabular", {"rows.csv": ""}, "data/rows.csv has 0 rows of : expected rows with a rent"),
        ("tabular", {"rows.csv": "a,rent\n" + "1,2\n" * 30 + "1\n"}, "has 1 cells in row 32: expected 2"),
        ("tabular", {"rows.csv": "a,rent\n" + "1,2\n" * 30 + ",2\n"}, "column 'a' has an empty cell in row 32"),
        (
            "tabular",
            {"rows.csv": "a,rent\n" + "1,two\n" * 30},
            "column 'rent' of data/rows.csv has something else than",
        ),
    ],
)
def test_data_that_are_not_there_yet_are_asked_for_in_one_line(
    name: str, spoil: dict[str, str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if name == "vision":
        pytest.importorskip("PIL")
    begin(name)
    Path("data").mkdir()
    for path, text in spoil.items():
        place = Path("data") / path
        (place if path.endswith("/") else place.parent).mkdir(parents=True, exist_ok=True)
        if not path.endswith("/"):
            place.write_text(text)
    capsys.readouterr()
    assert run_command_line(["check", TEMPLATES[name].job, "--data", "data"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert told in said[0]
    assert "Traceback" not in "".join(said)
    assert run_command_line(["check", TEMPLATES[name].job]) == 2
    assert "this job needs --data" in capsys.readouterr().err


def test_what_is_there_is_not_touched(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine").mkdir()
    Path("mine/thesis.tex").write_text("years of work")
    assert run_command_line(["init", "mine"]) == 2
    assert capsys.readouterr().err == (
        "paceline: 'mine' is not empty, thesis.tex is there: expected a new or empty folder\n"
    )
    assert [path.name for path in Path("mine").iterdir()] == ["thesis.tex"]
    assert run_command_line(["init", "mine/thesis.tex"]) == 2
    assert "'mine/thesis.tex' is no folder" in capsys.readouterr().err
    assert run_command_line(["init", "mine/thesis.tex/project"]) == 2
    assert "'mine/thesis.tex/project' lies in 'thesis.tex', which is no folder" in capsys.readouterr().err


def test_a_template_that_is_none_is_refused_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["init", "new", "--template", "visions"]) == 2
    assert capsys.readouterr().err == (
        "paceline: --template is 'visions': expected one of vision, text, tabular, own-loop (did you mean vision?)\n"
    )
    assert not Path("new").exists()


def test_an_empty_folder_is_filled_and_stays_the_same_folder() -> None:
    Path("here").mkdir()
    os.chdir("here")
    before = Path.cwd().stat().st_ino
    assert run_command_line(["init", "."]) == 0
    assert Path.cwd().stat().st_ino == before
    assert {path.name for path in Path().iterdir()} >= COMMON
    assert Path("README.md").read_text().startswith("# here\n")


@pytest.mark.parametrize("there", [False, True])
def test_a_project_is_written_whole_or_not_at_all(there: bool) -> None:
    files = render(TEMPLATES["text"], "new") | {"no such folder/file": ""}
    if there:
        Path("new").mkdir()
    with pytest.raises(UsageError, match="'new' cannot be written: No such file or directory"):
        write_whole(Path("new"), files)
    assert [path.name for path in Path().iterdir()] == (["new"] if there else [])
    assert not there or not [*Path("new").iterdir()]


def test_what_was_moved_before_something_failed_is_taken_away_again(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("new").mkdir()
    rename = Path.rename

    def fail_at_the_third(path: Path, target: Path) -> Path:
        if len([*Path("new").glob("[!.]*")]) == 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail_at_the_third)
    with pytest.raises(UsageError, match="'new' cannot be written: Input/output error"):
        write_whole(Path("new"), render(TEMPLATES["text"], "new"))
    assert not [*Path("new").iterdir()]


def test_a_new_project_has_the_permissions_of_a_new_folder() -> None:
    begin("tabular")
    Path("other").mkdir()
    assert Path.cwd().stat().st_mode == Path("other").stat().st_mode
