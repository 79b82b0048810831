"""`paceline certs init` from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from paceline.cli.app import run_command_line
from paceline.tls import read_tls


def test_certificates_are_made_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "tls"
    assert run_command_line(["certs", "init", str(folder), "--host", "a.example", "--host", "b", "--days", "9"]) == 0
    assert "valid for 9 days" in capsys.readouterr().out
    assert read_tls(folder, "server").ends == read_tls(folder, "worker").ends


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "no host is given"),
        (["--host", "a:7070"], "--host is 'a:7070'"),
        (["--host", "a", "--days", "many"], "--days is 'many'"),
        (["--host", "a", "--days", "0"], "--days is 0"),
    ],
)
def test_mistakes_are_one_line_and_make_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], words: str
) -> None:
    assert run_command_line(["certs", "init", str(tmp_path / "tls"), *flags]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert not (tmp_path / "tls").exists()


def test_files_that_are_there_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ca.key").write_text("mine")
    assert run_command_line(["certs", "init", str(tmp_path), "--host", "a"]) == 2
    assert f"{tmp_path / 'ca.key'} is there already" in capsys.readouterr().err
    assert (tmp_path / "ca.key").read_text() == "mine"
