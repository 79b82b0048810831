"""One self-contained page with the pictures of runs: the live page, with its files and the documents in it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from paceline.server.webpage import PAGE

_STYLE = re.compile(r'<link rel="stylesheet" href="([^"]+)">')
_SCRIPT = re.compile(r'<script src="([^"]+)" defer></script>\n')


def report_html(documents: Sequence[dict[str, Any]]) -> str:
    """Make the page of some runs' documents, see `picture.Picture`; the first is shown first."""
    page = (PAGE / "index.html").read_text(encoding="utf-8")
    scripts = "".join(f"<script>{_file(name)}</script>\n" for name in _SCRIPT.findall(page))
    # A name in a document must not end the element.
    data = json.dumps(list(documents), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    page = _STYLE.sub(lambda match: f"<style>{_file(match[1])}</style>", _SCRIPT.sub("", page))
    held = f'<script type="application/json" id="documents">{data}</script>\n'
    return page.replace("</body>", f"{held}{scripts}</body>")


def _file(name: str) -> str:
    return (PAGE / name).read_text(encoding="utf-8")
