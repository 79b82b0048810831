"""Writes the source of a class of a notebook or a console into a file, with the names that it uses.

Server and workers import a job; a class that was typed into a cell is in no file. Its source is, in the memory of the
notebook, and that of the functions and classes that it uses; modules and what comes from them can be imported, and
plain constants written down. Whatever else it uses (arrays, models, data frames) is refused by name: a copy of it could
only travel as a pickle, which would run code.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import inspect
import linecache
import symtable
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from paceline.errors import UsageError

ADVICE = "put the class into a file of its own (%%writefile my_job.py) and give 'my_job.py:{name}'"
_PLAIN = (int, float, complex, str, bytes, bool, type(None))


def write_source(job_class: type, folder: Path) -> Path:
    """Write a class and all that it uses into a file of its own, named by its content.

    Raises:
        UsageError: its source is not known, or it uses what no source can say.
    """
    parts = _Parts(job_class)
    text = parts.text()
    path = folder / f"{job_class.__name__.lower()}_{hashlib.sha256(text.encode()).hexdigest()[:8]}.py"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"job file {str(path)!r} cannot be written: {error.strerror}") from error
    return path


class _Parts:
    """Collects what a class needs, the needed before the needing."""

    def __init__(self, job_class: type) -> None:
        self._job = job_class.__name__
        self._known = vars(sys.modules[job_class.__module__])
        self._imports: dict[str, str] = {}
        self._definitions: dict[str, str] = {}
        self._open: set[str] = set()
        self._define(job_class.__name__, job_class)

    def text(self) -> str:
        """Give the file."""
        head = f'"""Job {self._job} of a notebook, with what it uses; written by paceline.train."""'
        return "\n\n".join([head, "\n".join(sorted(self._imports.values())), *self._definitions.values()]) + "\n"

    def _define(self, name: str, value: Any) -> None:
        self._open.add(name)
        source = _source_of(value)
        if source is None:
            raise self._refusal(f"the source of {name} is not known")
        try:
            names = [*_names_used(source, name)]
        except SyntaxError:
            raise self._refusal(f"the source of {name} is part of a longer line") from None
        for used in names:
            if used not in self._open and used not in self._imports and used not in self._definitions:
                self._need(used)
        own = value.__name__
        self._definitions[name] = source.rstrip() + (f"\n\n{name} = {own}" if own not in (name, "<lambda>") else "")

    def _need(self, name: str) -> None:
        if name not in self._known:
            if hasattr(builtins, name):
                return
            raise self._refusal(f"{name} is not defined")
        value = self._known[name]
        home = getattr(value, "__module__", None)
        if isinstance(value, ModuleType):
            self._imports[name] = f"import {value.__name__}" + _alias(value.__name__, name)
        elif isinstance(value, type | FunctionType) and home == "__main__":
            self._define(name, value)
        elif _is_plain(value):
            self._definitions[name] = f"{name} = {value!r}"
        elif (line := _import_line(name, value, home)) is not None:
            self._imports[name] = line
        else:
            raise self._refusal(
                f"it uses {name}, a {type(value).__name__} of this notebook: make it inside of the class"
            )

    def _refusal(self, why: str) -> UsageError:
        advice = ADVICE.format(name=self._job)
        return UsageError(f"job {self._job} is in no file that other processes could import, and {why}; or {advice}")


def _import_line(name: str, value: Any, home: str | None) -> str | None:
    """Say how to import a value; None: no module has it."""
    own = getattr(value, "__qualname__", getattr(value, "__name__", name))
    if not isinstance(own, str) or "." in own:
        own = name
    # What is written in C often does not know where it belongs: torch.ones. The shortest name is the public one.
    others = sorted(sys.modules, key=lambda module: (module.startswith("_"), module.count("."), len(module)))
    for module in others if home is None else [home, *others]:
        there = sys.modules.get(module)
        # multiprocessing knows the notebook's own by a second name.
        if there is not None and there is not sys.modules["__main__"] and vars(there).get(own) is value:
            return f"from {module} import {own}{_alias(own, name)}"
    return None


def _alias(own: str, name: str) -> str:
    return "" if own == name else f" as {name}"


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple | list | set | frozenset):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(_is_plain(key) and _is_plain(item) for key, item in value.items())
    return type(value) in _PLAIN


def _source_of(value: Any) -> str | None:
    """Give the source of a class or function; of a cell's class through one of its methods, which know their cell."""
    try:
        return textwrap.dedent(inspect.getsource(value))
    except (OSError, TypeError):
        pass
    for method in vars(value).values() if isinstance(value, type) else ():
        function = inspect.unwrap(getattr(method, "__func__", method))
        if not isinstance(function, FunctionType) or function.__qualname__.partition(".")[0] != value.__qualname__:
            continue
        cell = "".join(linecache.getlines(function.__code__.co_filename))
        found = _class_in(cell, value.__name__)
        if found:
            return found
    return _newest_class(value.__name__) if isinstance(value, type) else None


def _newest_class(name: str) -> str | None:
    """Find a class without methods in the newest cell that has one of its name."""
    for file in reversed([*linecache.cache]):
        # A cell is in memory only.
        found = None if Path(file).is_file() else _class_in("".join(linecache.getlines(file)), name)
        if found:
            return found
    return None


def _class_in(cell: str, name: str) -> str | None:
    """Give the last class of a name in a cell, decorators included."""
    try:
        tree = ast.parse(cell)
    except SyntaxError:
        return None
    for node in reversed(tree.body):
        if isinstance(node, ast.ClassDef) and node.name == name:
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            return "\n".join(cell.splitlines()[first - 1 : node.end_lineno])
    return None


def _names_used(source: str, file: str) -> Iterator[str]:
    """Give every name that a source takes from its module, or from the builtins."""

    def walk(table: symtable.SymbolTable) -> Iterator[str]:
        yield from (
            symbol.get_name() for symbol in table.get_symbols() if symbol.is_referenced() and symbol.is_global()
        )
        for child in table.get_children():
            yield from walk(child)

    yield from dict.fromkeys(walk(symtable.symtable(source, file, "exec")))
