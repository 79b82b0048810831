"""The settings of `paceline.train`: those of `paceline run`, by their names there."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paceline.cli.commands import RunCommand
from paceline.cli.configuration import build, gather
from paceline.cli.options import options_of
from paceline.errors import UsageError
from paceline.nearest import did_you_mean


def run_command(given: Mapping[str, Any]) -> RunCommand:
    """Make the settings of a run; an argument goes before the environment, and that before paceline.toml.

    Args:
        given: by name, `micro_batch` for `--micro-batch`; None: not given.

    Raises:
        UsageError: no setting has that name, a value is wrong, or there is no job.
        SettingsError: settings contradict each other.
    """
    fields = {option.name.replace("-", "_"): option.field for option in options_of("run")}
    flags: dict[str, object] = {}
    names: dict[str, str] = {}
    for name, value in given.items():
        # Units are part of the settings' own names, which are taken as well: grace and grace_s.
        field = fields.get(name, name if name in fields.values() else None)
        if field is None:
            raise UsageError(
                f"train() has no setting {name!r}{did_you_mean(name, fields)}: expected one of `paceline run`"
            )
        if value is not None:
            flags[field], names[field] = _as_on_the_line(value), name
    found = gather("run", flags, os.environ, Path.cwd())
    for field, name in names.items():
        if field in found:
            found[field] = dataclasses.replace(found[field], origin="argument", subject=name)
    command = build("run", found)
    assert isinstance(command, RunCommand)  # what the table of models says
    return command


def _as_on_the_line(value: object) -> object:
    return str(value) if isinstance(value, os.PathLike) else value
