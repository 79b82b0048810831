"""The server: `serve` embeds one in an event loop, `run_server` gives it the process.

Its parts are imported once they are asked for: `paceline status` needs `paceline.server.status` alone, and no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paceline.server.app import RunResult, Server, Started, serve
    from paceline.server.preparation import prepare
    from paceline.server.run import run_server
else:
    _HOMES = {
        "RunResult": "paceline.server.app",
        "Server": "paceline.server.app",
        "Started": "paceline.server.app",
        "serve": "paceline.server.app",
        "prepare": "paceline.server.preparation",
        "run_server": "paceline.server.run",
    }

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(_HOMES[name]), name)


__all__ = ["RunResult", "Server", "Started", "prepare", "run_server", "serve"]
