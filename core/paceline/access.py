"""What a worker or a person shows to a server: certificates and a token."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from paceline.errors import SettingsError

if TYPE_CHECKING:
    from paceline.tls import Tls

# The token itself; never an argument, which every process of the machine can read.
VARIABLE = "PACELINE_TOKEN"
TOKEN = re.compile(r"pl_([0-9a-f]{12})_([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Access:
    """Who is asking.

    Attributes:
        tls: None: nothing is encrypted.
        token: empty: none.
    """

    tls: Tls | None = None
    token: str = field(default="", repr=False)


OPEN = Access()


def read_access(tls_dir: Path | None, token_file: Path | None, environ: Mapping[str, str] = os.environ) -> Access:
    """Read certificates and token; a token file goes before the environment.

    Raises:
        SettingsError: one of them is given and cannot be used.
    """
    tls = None
    if tls_dir is not None:
        from paceline.tls import read_tls

        tls = read_tls(tls_dir, "worker")
    return Access(tls, _token(token_file, environ))


def _token(path: Path | None, environ: Mapping[str, str]) -> str:
    if path is None:
        text, where = environ.get(VARIABLE, "").strip(), VARIABLE
        if not text:
            return ""
    else:
        where = f"token file {path}"
        try:
            with path.open("rb") as file:
                text = file.read(256).decode(errors="replace").strip()
        except OSError as error:
            raise SettingsError(f"{where} cannot be read: {error.strerror}") from None
    if not TOKEN.fullmatch(text):
        # It is not shown: it may be a secret all the same.
        raise SettingsError(f"{where} holds no token: expected pl_<id>_<secret>, as `paceline token create` prints it")
    return text
