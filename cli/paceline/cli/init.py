"""`paceline init`: writes a project to begin with, from the templates that come with the package."""

from __future__ import annotations

import importlib.resources
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated

import typer

from paceline.errors import UsageError
from paceline.nearest import did_you_mean
from paceline.version import __version__

EXAMPLES = ("paceline init my_project", "paceline init my_project --template own-loop")


@dataclass(frozen=True, slots=True)
class Template:
    """A project to begin with.

    Attributes:
        folder: of its files, in the package.
        job: the job that it holds.
        about: in a few words.
        begin: what its README begins with, before check and run.
        data: it has a folder with data.
    """

    folder: str
    job: str
    about: str
    begin: tuple[str, ...] = ("python make_data.py",)
    data: bool = True

    def commands(self) -> tuple[str, ...]:
        """Give the commands that its README begins with."""
        return *self.begin, f"paceline check {self.named()}", f"paceline run {self.named()}"

    def named(self) -> str:
        """Name the job, and its data, as commands do."""
        return f"{self.job} --data data" if self.data else self.job


TEMPLATES = {
    "vision": Template(
        "vision",
        "job.py:Pictures",
        "a folder of pictures for each class",
        ("pip install -r requirements.txt", "python make_data.py"),
    ),
    "text": Template("text", "job.py:Text", "the characters of *.txt files"),
    "tabular": Template("tabular", "job.py:Table", "a CSV file"),
    "own-loop": Template(
        "own_loop", "job.py:Own", "the usual training loop, turned into a job", ("python loop.py",), False
    ),
}
_COMMON = "common"
# They would have an effect, or be left out, where they lie in the package under their own names.
_HIDDEN = ("gitignore", "dockerignore")
_README, _README_END = "README.md", "machines.md"


def register_init(app: typer.Typer) -> None:
    """Add init to the commands."""
    app.command("init", epilog="\n\n".join(["Examples:", *(f"  [bold]{line}[/bold]" for line in EXAMPLES)]))(init)


def init(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Write there: a new or empty folder.", show_default=False)
    ],
    template: Annotated[
        str,
        typer.Option(
            metavar="|".join(TEMPLATES),
            help="; ".join(f"{name}: {one.about}" for name, one in TEMPLATES.items()) + ".",
        ),
    ] = "vision",
) -> int:
    """Write a project to begin with: a job that trains, settings, a Dockerfile and a README.

    Each template trains as it is, on a little data that it makes itself; your own model and data go in their place.
    """
    chosen = TEMPLATES.get(template)
    if chosen is None:
        expected = f"expected one of {', '.join(TEMPLATES)}{did_you_mean(template, TEMPLATES)}"
        raise UsageError(f"--template is {template!r}: {expected}")
    files = render(chosen, folder.resolve().name)
    write_whole(folder, files)
    typer.echo(f"{folder}: {', '.join(sorted(files))}")
    typer.echo("next:")
    for line in (f"cd {folder}", *chosen.commands()):
        typer.echo(f"  {line}")
    return 0


def render(template: Template, name: str) -> dict[str, str]:
    """Give the files of a project.

    Args:
        name: of the project.
    """
    root = importlib.resources.files("paceline.cli") / "templates"
    texts = {file.name: file.read_text("utf-8") for part in (_COMMON, template.folder) for file in _files(root / part)}
    texts[_README] += texts.pop(_README_END)
    values = {
        "name": name,
        "image": re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "project",
        "job": template.named(),
        "version": __version__,
    }
    return {f".{name}" if name in _HIDDEN else name: _filled(text, values) for name, text in texts.items()}


def write_whole(folder: Path, files: Mapping[str, str]) -> None:
    """Write files into a new or an empty folder, all or none.

    Raises:
        UsageError: something is there already, or the folder cannot be written.
    """
    _check_free(folder)
    there = folder.is_dir()
    moved: list[Path] = []
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Beside the folder, or in it: so they can be renamed, which either happens or does not.
        with tempfile.TemporaryDirectory(prefix=".paceline-init-", dir=folder if there else folder.parent) as temporary:
            # Of its own, with the permissions of an ordinary new folder.
            made = Path(temporary) / "project"
            made.mkdir()
            for name, text in files.items():
                (made / name).write_text(text, encoding="utf-8")
            if not there:
                made.rename(folder)
                return
            # It may be somebody's working directory: it stays the folder that it is.
            for path in sorted(made.iterdir()):
                moved.append(path.rename(folder / path.name))  # noqa: PERF401  # what fails in the midst is undone
    except OSError as error:
        for path in moved:
            path.unlink(missing_ok=True)
        raise UsageError(f"{str(folder)!r} cannot be written: {error.strerror}") from error


def _check_free(folder: Path) -> None:
    if folder.is_dir():
        found = sorted(path.name for path in folder.iterdir())
        if found:
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            raise UsageError(f"{str(folder)!r} is not empty, {found[0]}{more} is there: expected a new or empty folder")
    elif folder.exists() or folder.is_symlink():
        raise UsageError(f"{str(folder)!r} is no folder: expected a new or empty one")
    above = next(parent for parent in folder.absolute().parents if parent.exists())
    if not above.is_dir():
        raise UsageError(f"{str(folder)!r} lies in {above.name!r}, which is no folder: expected a new or empty folder")


def _files(folder: Traversable) -> list[Traversable]:
    return [file for file in folder.iterdir() if file.is_file()]


def _filled(text: str, values: Mapping[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], text)
