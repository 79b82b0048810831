"""Where settings come from: flag, then environment, then paceline.toml, then default. Knows of each where it stood."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from paceline.cli.commands import CommandSettings, joined
from paceline.cli.messages import explain
from paceline.cli.options import MODELS, OPTIONS, Option, options_of
from paceline.errors import PacelineError, SettingsError, UsageError

FILE_NAME = "paceline.toml"
# What a run directory has from its beginning on; named here too, since the server is not imported for it.
SETTINGS = "settings.json"


@dataclass(frozen=True, slots=True)
class Given:
    """One value that somebody gave.

    Attributes:
        origin: the flag, the variable, or the file and table.
        subject: how a message names it.
        fault: what a wrong value is: the caller's mistake, or one of the settings around.
    """

    value: object
    origin: str
    subject: str
    fault: type[PacelineError] = SettingsError


def gather(command: str, flags: Mapping[str, object], environ: Mapping[str, str], folder: Path) -> dict[str, Given]:
    """Collect what was given for a command, the first source winning.

    Args:
        flags: by field; None: not given.
        folder: where paceline.toml may lie.

    Returns:
        by field, without the settings that nobody gave; of a run that is to be resumed its own come last.

    Raises:
        SettingsError: the file cannot be read or has an unknown key.
        UsageError: there is no run to resume.
    """
    found: dict[str, Given] = {}
    in_file = _from_file(command, folder / FILE_NAME)
    for option in options_of(command):
        flag, text = flags.get(option.field), environ.get(option.variable)
        if flag is not None:
            found[option.field] = Given(flag, option.flag, option.flag, UsageError)
        # An empty variable is one that is not set: `${NAME:-}` of a compose file.
        elif text:
            found[option.field] = Given(text, option.variable, option.variable)
        elif option.field in in_file:
            found[option.field] = in_file[option.field]
    found = _without_resume_of_nothing(found)
    return _of_the_run(command, found) | found


def build(command: str, given: Mapping[str, Given]) -> CommandSettings:
    """Make a command's settings.

    Raises:
        UsageError: a value on the command line is wrong, or an argument is missing.
        SettingsError: a value elsewhere is wrong, or settings contradict each other.
    """
    model = MODELS[command]
    for option in options_of(command):
        if option.argument and option.field not in given:
            raise UsageError(f"{option.flag} is missing: expected `paceline {command} {_arguments(command)}`")
    try:
        return model.model_validate({field: one.value for field, one in given.items()})
    except ValidationError as error:
        raise _refusal(command, error, given) from None


def describe(command: str, given: Mapping[str, Given], settings: CommandSettings) -> str:
    """List every setting, its value and where it came from, one per line."""
    rows = [("setting", "value", "from")]
    for option in options_of(command):
        origin = given[option.field].origin if option.field in given else "default"
        rows.append((option.name, _written(getattr(settings, option.field)), origin))
    wide = [max(len(row[column]) for row in rows) for column in range(2)]
    return "\n".join(f"{name:<{wide[0]}}  {value:<{wide[1]}}  {origin}" for name, value, origin in rows)


def default_of(command: str, option: Option) -> str:
    """Write the value that a setting has if nobody gives one; empty where there is none, or where it is "no"."""
    field = MODELS[command].model_fields[option.field]
    if field.is_required() or field.default is None or field.default is False:
        return ""
    return _written(field.default)


def _without_resume_of_nothing(given: dict[str, Given]) -> dict[str, Given]:
    """Begin a run where there is none to go on with, if its directory is named twice: what a supervisor always says."""
    if "resume" not in given or "run_dir" not in given:
        return given
    resume, run_dir = Path(str(given["resume"].value)), Path(str(given["run_dir"].value))
    if resume.absolute() != run_dir.absolute() or (run_dir / SETTINGS).exists():
        return given
    return {field: one for field, one in given.items() if field != "resume"}


def _of_the_run(command: str, given: Mapping[str, Given]) -> dict[str, Given]:
    """Give the settings of the run that is to be resumed: what is said anew is held against them later."""
    if "resume" not in given:
        return {}
    from paceline.server.past_run import read_settings

    run = str(given["resume"].value)
    known = {option.field: option.name for option in options_of(command)}
    return {
        field: Given(value, f"run {run}", f"{known[field]} of run {run!r}")
        for field, value in read_settings(Path(run)).items()
        if field in known
    }


def _from_file(command: str, path: Path) -> dict[str, Given]:
    """Read the flat keys and the command's table, which goes before; every key is checked, whoever may need it."""
    if not path.is_file():
        return {}
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path.name} cannot be read: {error}") from None
    flat = {key: value for key, value in document.items() if key not in MODELS}
    found = _entries(OPTIONS, flat, path.name, [*MODELS])
    for name in MODELS:
        table = document.get(name, {})
        if not isinstance(table, dict):
            raise SettingsError(f"{name} in {path.name} is {table!r}: expected a table, [{name}]")
        entries = _entries(options_of(name), table, f"{path.name} [{name}]", [])
        if name == command:
            found |= entries
    return found


def _entries(options: tuple[Option, ...], table: Mapping[str, Any], where: str, others: list[str]) -> dict[str, Given]:
    by_name = {option.name: option for option in options}
    found: dict[str, Given] = {}
    for key, value in table.items():
        option = by_name.get(key.replace("_", "-"))
        if option is None:
            near = difflib.get_close_matches(key.replace("_", "-"), [*by_name, *others], n=1)
            hint = f"did you mean {near[0]}?" if near else "see --help for the settings, without their dashes"
            raise SettingsError(f"{where} has the unknown key {key!r}: {hint}")
        found[option.field] = Given(value, where, f"{key} in {where}")
    return found


def _refusal(command: str, error: ValidationError, given: Mapping[str, Given]) -> PacelineError:
    """Make one error of the first that pydantic found."""
    first = error.errors(include_url=False)[0]
    field = str(first["loc"][0]) if first["loc"] else ""
    source = given.get(field)
    if source is None:
        return SettingsError(explain(MODELS[command], first, ""))
    return source.fault(explain(MODELS[command], first, source.subject))


def _arguments(command: str) -> str:
    return " ".join(option.shows for option in options_of(command) if option.argument)


def _written(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ",".join(f"{name}={number:g}" for name, number in value.items())
    if isinstance(value, tuple):
        return joined([f"{part:g}" if isinstance(part, float) else part for part in value])
    return f"{value:g}" if isinstance(value, float) else str(value)
