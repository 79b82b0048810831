"""The documentation's links, pages and commands; and the site that is made of them."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import typer.main

from paceline.cli.app import app
from tests.docs.test_readme import BLOCK, ROOT, run

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
# Between fences nothing is a link.
FENCE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Give the anchors of a page's headings, as code hosts and mkdocs make them."""
    found = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_between_files_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        parts = urlsplit(link)
        if parts.scheme:
            continue
        target = page.parent / unquote(parts.path) if parts.path else page
        assert target.exists(), f"{link} leads nowhere"
        if parts.fragment:
            assert parts.fragment in anchors(target), f"{link} names no heading"


def test_every_page_is_in_the_navigation() -> None:
    listed = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    decisions = {page for page in pages if re.match(r"adr/\d", page)}
    assert pages - decisions <= listed
    index = (ROOT / "docs" / "adr" / "README.md").read_text(encoding="utf-8")
    assert all(Path(page).name in index for page in decisions)


class Links(HTMLParser):
    """Collects what a page links to, and what in it can be linked to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        known = dict(attributes)
        if known.get("id"):
            self.anchors.add(str(known["id"]))
        for name in ("href", "src"):
            if known.get(name):
                self.links.append(str(known[name]))


@pytest.mark.slow
def test_the_site_is_whole(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    pages = {page: Links(page.read_text(encoding="utf-8")) for page in (tmp_path / "site").rglob("*.html")}
    for page, found in pages.items():
        if page.name == "404.html":  # is served from anywhere, with absolute links
            continue
        for link in found.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or link.startswith("data:"):
                assert parts.scheme in ("http", "https", "data", "mailto"), link
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            target = target / "index.html" if target.is_dir() else target
            assert target.exists(), f"{page.name}: {link} leads nowhere"
            if parts.fragment and not parts.fragment.startswith("__") and target in pages:
                assert parts.fragment in pages[target].anchors, f"{page.name}: {link} names nothing"
    reference = (tmp_path / "site" / "reference" / "commands.html").read_text(encoding="utf-8")
    assert all(f"paceline {name}" in reference for name in typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    job = (tmp_path / "site" / "reference" / "job.html").read_text(encoding="utf-8")
    assert "Compute the loss of a batch." in job


def blocks(name: str, folder: Path) -> list[str]:
    """Write the files of a page into a folder, and give its commands and scripts."""
    found: list[str] = []
    for block in BLOCK.finditer((ROOT / "docs" / name).read_text(encoding="utf-8")):
        mark = block["mark"] or ""
        if mark.startswith("file: "):
            (folder / mark.removeprefix("file: ")).write_text(block["text"])
        elif mark == "run":
            found += block["text"].splitlines()
        else:
            assert mark == "script"
            found.append(block["text"])
    return found


@pytest.mark.slow
@pytest.mark.system
def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    said = [run(command, tmp_path) for command in blocks("tutorial.md", tmp_path)]
    assert len(said) == 6
    trained, replayed = (re.findall(r"fingerprint (\w{12})", said[place]) for place in (2, 4))
    assert trained == replayed, "whoever died"
    accuracy = re.search(r"accuracy ([\d.]+)", said[2])
    assert accuracy is not None
    assert float(accuracy[1]) > 0.95
    assert "bit-equal: 120 rounds" in said[4]
    assert "parameters" in said[5]


@pytest.mark.slow
@pytest.mark.system
def test_a_loop_and_its_job_learn_the_same(tmp_path: Path) -> None:
    said = [run(command, tmp_path) for command in blocks("coming-from.md", tmp_path)]
    scores = [re.search(r"accuracy ([\d.]+)", text) for text in said]
    assert all(score is not None and float(score[1]) > 0.95 for score in scores)
