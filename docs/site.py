"""What the site has beside the files of docs/: the README as its first page, the commands' help, and the examples.

A hook of mkdocs. Links that point out of docs/, as they must on a code host, are turned to the pages made here.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
# Files of the repository that are pages too.
TOP = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
MARKUP = re.compile(r"\[/?[a-z ]*\]")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages that are made here."""
    files.append(File.generated(config, "index.md", content=(ROOT / "README.md").read_text(encoding="utf-8")))
    for name in TOP:
        files.append(File.generated(config, name, content=(ROOT / name).read_text(encoding="utf-8")))
    files.append(File.generated(config, "reference/commands.md", content="\n".join(commands())))
    for path in sorted((ROOT / "examples").glob("*.py")):
        text = f"# {path.name}\n\n```python\n{path.read_text(encoding='utf-8')}```\n"
        made = File.generated(config, f"examples/{path.stem}.md", content=text)
        made.inclusion = type(made.inclusion).NOT_IN_NAV
        files.append(made)
    for file in files.documentation_pages():
        if re.match(r"adr/\d", file.src_uri):
            file.inclusion = type(file.inclusion).NOT_IN_NAV
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links to what the repository has elsewhere."""
    home = page.file.src_uri
    if home == "index.md" or home in TOP:
        markdown = re.sub(r"\]\(docs/adr/?\)", "](adr/README.md)", markdown)
        markdown = re.sub(r"\]\(docs/", "](", markdown)
        return re.sub(r"\]\(examples/(\w+)\.py\)", r"](examples/\1.md)", markdown)
    up = "../" * home.count("/")
    markdown = re.sub(r"\]\((?:\.\./)+README\.md", f"]({up}index.md", markdown)
    markdown = re.sub(r"\]\((?:\.\./)+examples/(\w+)\.py\)", rf"]({up}examples/\1.md)", markdown)
    return re.sub(r"\]\((?:\.\./)+(CHANGELOG|CONTRIBUTING|SECURITY)\.md\)", rf"]({up}\1.md)", markdown)


def commands() -> Iterator[str]:
    """Write a section for each command: what it does, its arguments, its options, and examples."""
    from paceline.cli.app import app

    yield "# Commands"
    yield ""
    yield "Made of what `paceline COMMAND --help` says."
    yield ""
    for words, command in _walk(typer.main.get_command(app), ["paceline"]):
        yield f"## {' '.join(words)}"
        yield ""
        yield _plain(command.help or "")
        yield ""
        yield "| | |"
        yield "|---|---|"
        for part in command.params:
            yield f"| {_named(part)} | {_cell(getattr(part, 'help', '') or '')} |"
        yield ""
        examples = re.findall(r"\[bold\](.*?)\[/bold\]", command.epilog or "")
        if examples:
            yield "```sh"
            yield from examples
            yield "```"
            yield ""


def _walk(command: Any, words: list[str]) -> Iterator[tuple[list[str], Any]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield words, command
        return
    for name in inner:
        yield from _walk(inner[name], [*words, name])


def _named(part: Any) -> str:
    if part.param_type_name != "option":
        return f"`{(part.metavar or part.name).strip('[]')}`"
    metavar = "" if part.is_flag or not part.metavar else f" {part.metavar}"
    return f"`{part.opts[0]}{metavar}`".replace("|", "\\|")


def _cell(text: str) -> str:
    return _plain(text).replace("|", "\\|").replace("\n", " ")


def _plain(text: str) -> str:
    return MARKUP.sub("", text).replace("<", "&lt;").strip()


def lay_together() -> None:
    """Make one package of the five folders, whose docstrings the reference shows."""
    whole = ROOT / "build" / "site-sources" / "paceline"
    shutil.rmtree(whole, ignore_errors=True)
    left_out = shutil.ignore_patterns("__pycache__")
    for folder in ("core", "server", "worker", "protos", "cli"):
        shutil.copytree(ROOT / folder / "paceline", whole, ignore=left_out, dirs_exist_ok=True)


# Now: plugins look for the folder before they call any hook.
lay_together()
