"""A real headless Chromium, driven by Playwright; skips with a reason where either is not to be had."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

# No sandbox: CI is root in a container. No network of its own: it would look for updates.
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@dataclass
class Watched:
    """A page, and what went wrong on it."""

    page: Any
    faults: list[str] = field(default_factory=list)


@contextmanager
def browsing(width: int = 1280, height: int = 900, *, dark: bool = False, **context: Any) -> Iterator[Watched]:
    """Open a page in a browser; at the end its console must have been silent."""
    api = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install 'paceline[browser]'"
    )
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(_FLAGS))
        try:
            scheme = "dark" if dark else "light"
            made = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, **context)
            watched = Watched(made.new_page())
            watched.page.on("console", lambda message: watched.faults.append(f"{message.type}: {message.text}"))
            watched.page.on("pageerror", lambda error: watched.faults.append(str(error)))
            yield watched
            assert watched.faults == []
        finally:
            browser.close()
