"""Every `paceline` command that a page of the documentation shows is one that the command line takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from paceline.cli.app import app
from tests.docs.test_readme import ROOT

# A namespace, a group, a user and a package are called so too.
COMMAND = re.compile(
    r"(?:^|\s)(?:(?<!-[ng] )(?<!nologin )(?<!install )paceline|-m paceline\.(?:cli|worker))(\s+[^|>&;]*)"
)
FENCE = re.compile(r"```(?:sh|console|bash)\n(.*?)```", re.DOTALL)
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(page: Path) -> list[str]:
    """Give the lines of a page that begin a paceline command, continued ones as one."""
    found = []
    for block in FENCE.findall(page.read_text(encoding="utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            # What comes before may be another command's, or an assignment.
            match = COMMAND.search(line.partition(" #")[0])
            if match:
                found.append(("worker" if "paceline.worker" in match[0] else "") + match[1])
    return found


def parse(words: list[str]) -> None:
    """Have the command line read a command; nothing is run."""
    command: Any = typer.main.get_command(app)
    context = None
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        context = command.make_context(command.name, [words[0]], parent=context, resilient_parsing=True)
        command, words = command.commands[words[0]], words[1:]
    if "--help" not in words and "--version" not in words and words[:1] != ["--install-completion"]:
        command.make_context(command.name, list(words), parent=context)


SHOWN = [(page.name, command) for page in PAGES for command in commands(page)]


def test_there_are_many() -> None:
    assert len(SHOWN) > 60


@pytest.mark.parametrize(("page", "command"), SHOWN, ids=[f"{page}-{n}" for n, (page, _) in enumerate(SHOWN)])
def test_the_command_line_takes_it(page: str, command: str) -> None:
    try:
        parse(shlex.split(command))
    except (KeyError, SystemExit) as error:
        raise AssertionError(f"{page}: paceline{command}: {error!r}") from None


@pytest.mark.parametrize("command", ["run a.py:A --wrokers 3", "frobnicate", "pause host:1", "report --html"])
def test_what_it_does_not_take_is_noticed(command: str) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011  # of the library under typer, which is nobody's to name
        parse(shlex.split(command))
    assert isinstance(caught.value, KeyError) or hasattr(caught.value, "format_message"), caught.value
