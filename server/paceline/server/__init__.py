"""The server: `serve` embeds one in an event loop, `run_server` gives it the process."""

from __future__ import annotations

from paceline.server.app import RunResult, Server, serve
from paceline.server.preparation import prepare
from paceline.server.run import run_server

__all__ = ["RunResult", "Server", "prepare", "run_server", "serve"]
