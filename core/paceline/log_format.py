"""How log lines look: for people at a terminal, as JSON everywhere else."""

from __future__ import annotations

import os
from typing import TextIO

FORMAT_VARIABLE = "PACELINE_LOG"


def logs_json(stream: TextIO) -> bool:
    """Tell whether lines on a stream are JSON: as PACELINE_LOG says, json or text; else where it is no terminal."""
    said = os.environ.get(FORMAT_VARIABLE, "")
    return said == "json" or (said != "text" and not stream.isatty())
