"""Turns what pydantic says about a wrong setting into one line: the setting, its value, what was expected."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from paceline.nearest import did_you_mean

_KINDS = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "string": "text"}


def explain(model: type[BaseModel], error: ErrorDetails, subject: str) -> str:
    """Write the line.

    Args:
        subject: how the message names the setting: its flag, variable or key; empty where several are at odds.
    """
    if error["type"] == "value_error":
        message = str(error["ctx"]["error"]) if "ctx" in error else error["msg"]
        # Our own validators write whole lines; only the name that they begin with is replaced by the one that was used.
        return re.sub(r"^[\w-]+(?= is )", lambda _: subject, message) if subject else message
    field = str(error["loc"][0])
    schema = model.model_json_schema()["properties"][field]
    value = error["input"]
    return f"{subject or field} is {value!r}: expected {_expected(schema, value)}"


def _expected(schema: dict[str, Any], value: object) -> str:
    choices = [part for part in schema.get("anyOf", [schema]) if part.get("type") != "null"]
    wanted = choices[0]
    if "enum" in wanted:
        names = [str(name) for name in wanted["enum"]]
        return f"one of {', '.join(names)}{did_you_mean(str(value), names)}"
    bounds = [
        f"{words} {wanted[key]:g}"
        for key, words in (
            ("minimum", "at least"),
            ("exclusiveMinimum", "above"),
            ("maximum", "at most"),
            ("exclusiveMaximum", "below"),
        )
        if key in wanted
    ]
    kind = _KINDS.get(wanted.get("type", ""), "another value")
    words = [f"{kind}, {' and '.join(bounds)}" if bounds else kind]
    words += [part["const"] for part in choices[1:] if "const" in part]
    return " or ".join(words)
