"""A run with certificates and tokens, and the flags with which people come to it."""

from __future__ import annotations

import re
from pathlib import Path

from tests.system.cluster import Cluster, paceline, until


class Guarded:
    """A server with TLS and tokens, and what people need for it.

    Attributes:
        admin: flags with which an admin asks.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.tls, self.tokens = folder / "tls", folder / "tokens.json"
        assert paceline("certs", "init", str(self.tls), "--host", "main-node").returncode == 0
        self.admin = self.token("ann", "--role", "admin")

    def token(self, name: str, *more: str) -> tuple[str, ...]:
        """Make a token and give the flags that show it."""
        done = paceline("token", "create", "--tokens", str(self.tokens), "--name", name, *more)
        assert done.returncode == 0, done.stderr
        path = self._folder / f"{name}.token"
        path.write_text(done.stdout)
        return ("--tls-dir", str(self.tls), "--token-file", str(path))

    def at_work(self, run: Cluster, *names: str) -> None:
        """Wait until workers have joined."""

        def joined() -> bool:
            said = paceline("status", run.address, *self.admin).stdout
            return all(re.search(rf"{name} +(free|busy)", said) for name in names)

        until(joined, f"{names} at work\n{run.all_logs()}")
