"""The server's view of a file of tokens, which may change while it runs."""

from __future__ import annotations

from pathlib import Path

import structlog

from paceline.errors import UsageError
from paceline.tokens import Token, find_token, now_utc, read_tokens

_Stamp = tuple[int, int, int]


class TokenBook:
    """A file of tokens, read again when it has changed.

    A file that cannot be read any more is logged, and what was read before holds: a slip must not stop a run.

    Raises:
        UsageError: it cannot be read at first.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = self._look()
        self._tokens = {token.id: token for token in read_tokens(path)}

    def refresh(self) -> None:
        """Read the file if it has changed."""
        stamp = self._look()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._tokens = {token.id: token for token in read_tokens(self._path)}
        except UsageError as error:
            structlog.get_logger().error(f"{error}; the tokens that were read before still hold")

    def find(self, text: str) -> Token | None:
        """Find the token that a text is, good or not."""
        self.refresh()
        return find_token(self._tokens, text)

    def fault(self, token_id: str) -> str | None:
        """Say why a token that was good is good no more."""
        token = self._tokens.get(token_id)
        return token.fault(now_utc()) if token is not None else f"token {token_id} is in the file of tokens no more"

    def _look(self) -> _Stamp | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size
