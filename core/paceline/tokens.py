"""Tokens: who may join a run, see it, or rule it. A file keeps them without their secrets.

A token is ``pl_<id>_<secret>``. Its id may be shown; of its secret only the SHA-256 is kept: 256 random bits need no
slow hash.
"""

from __future__ import annotations

import datetime
import enum
import fcntl
import hashlib
import hmac
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from paceline.access import TOKEN
from paceline.errors import UsageError
from paceline.secret_files import replace_secret
from paceline.settings import WORKER_NAME

MOST = 10_000
_MOST_BYTES = 8 << 20


class Role(enum.StrEnum):
    """What a token is good for; admin for all."""

    WORKER = "worker"
    VIEWER = "viewer"
    ADMIN = "admin"


class Token(BaseModel):
    """What is kept of a token.

    Attributes:
        id: its first part, which may be shown.
        name: of the worker, where it is one's; else of whoever has it.
        sha256: of its secret.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
    name: Annotated[str, Field(pattern=f"^{WORKER_NAME.pattern}$")]
    role: Role
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    created: AwareDatetime
    expires: AwareDatetime | None = None
    revoked: AwareDatetime | None = None

    def fault(self, now: datetime.datetime) -> str | None:
        """Say why it is good no more; None: it is good."""
        if self.revoked is not None:
            return f"token {self.id} of {self.name!r} was revoked at {_written(self.revoked)}"
        if self.expires is not None and now >= self.expires:
            return f"token {self.id} of {self.name!r} expired at {_written(self.expires)}"
        return None


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    tokens: Annotated[tuple[Token, ...], Field(max_length=MOST)] = ()


def now_utc() -> datetime.datetime:
    """Give the time."""
    return datetime.datetime.now(datetime.UTC)


def read_tokens(path: Path) -> tuple[Token, ...]:
    """Read a file of tokens.

    Raises:
        UsageError: it cannot be read, or holds something else.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(
            f"tokens {path} cannot be read: {error.strerror}: make one with `paceline token create`"
        ) from None
    if len(data) > _MOST_BYTES:
        raise UsageError(f"tokens {path} has more than {_MOST_BYTES} bytes: expected a file of `paceline token create`")
    try:
        return _File.model_validate_json(data).tokens
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UsageError(f"tokens {path} is no file of tokens: {where}: {first['msg']}") from None


def create_token(path: Path, name: str, role: Role, lasts_s: float | None) -> str:
    """Add a token to a file, which is made if there is none.

    Args:
        lasts_s: it expires so long from now; None: never.

    Returns:
        The token: the only time that its secret is seen.

    Raises:
        UsageError: the name or the time is none, or the file cannot be read or written.
    """
    if not WORKER_NAME.fullmatch(name):
        raise UsageError(f"--name is {name!r}: expected 1 to 64 of the characters A-Z a-z 0-9 . _ -")
    created = now_utc()
    try:
        expires = None if lasts_s is None else created + datetime.timedelta(seconds=lasts_s)
    except OverflowError:
        raise UsageError(f"--expires is {lasts_s:g} s: expected less than some thousand years") from None
    if lasts_s is not None and lasts_s <= 0:
        raise UsageError(f"--expires is {lasts_s:g} s: expected more than 0")
    with _locked(path):
        tokens = read_tokens(path) if path.exists() else ()
        if len(tokens) >= MOST:
            raise UsageError(f"tokens {path} has {len(tokens)} tokens: expected fewer than {MOST}")
        known = {token.id for token in tokens}
        while (token_id := secrets.token_hex(6)) in known:
            pass
        secret = secrets.token_hex(32)
        token = Token(id=token_id, name=name, role=role, sha256=_sha256(secret), created=created, expires=expires)
        _write(path, (*tokens, token))
    return f"pl_{token_id}_{secret}"


def revoke_tokens(path: Path, which: str) -> tuple[Token, ...]:
    """Revoke a token by its id, or all of a name.

    Returns:
        Those that were good until now.

    Raises:
        UsageError: there is none, or the file cannot be read or written.
    """
    with _locked(path):
        tokens = read_tokens(path)
        named = [token for token in tokens if which in (token.id, token.name)]
        if not named:
            raise UsageError(f"no token of {path} has the id or name {which!r}: see `paceline token ls`")
        now = now_utc()
        hit = tuple(token for token in named if token.fault(now) is None)
        changed = {token.id: token.model_copy(update={"revoked": now}) for token in named if token.revoked is None}
        _write(path, tuple(changed.get(token.id, token) for token in tokens))
    return hit


def find_token(tokens: dict[str, Token], text: str) -> Token | None:
    """Find the token that a text is, good or not; in the same time whether its id is known or not."""
    match = TOKEN.fullmatch(text)
    token_id, secret = (match[1], match[2]) if match else ("", "")
    token = tokens.get(token_id)
    expected = token.sha256 if token is not None else _sha256("")
    same = hmac.compare_digest(_sha256(secret), expected)
    return token if same else None


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _written(time: datetime.datetime) -> str:
    return f"{time.astimezone(datetime.UTC):%Y-%m-%d %H:%M:%S} UTC"


def _write(path: Path, tokens: tuple[Token, ...]) -> None:
    replace_secret(path, (_File(tokens=tokens).model_dump_json(indent=1) + "\n").encode())


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other commands from changing a file of this folder meanwhile."""
    try:
        descriptor = os.open(path.parent, os.O_RDONLY)
    except OSError as error:
        raise UsageError(f"tokens {path} cannot be written: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
