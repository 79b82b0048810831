"""No source has anything in it that runs code out of data: pickle and its like, eval, torch.load, yaml.load."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("core", "server", "worker", "protos", "cli", "examples", "benchmarks", "tests")
MODULES = frozenset({"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "code"})
BUILTINS = frozenset({"eval", "exec", "compile", "__import__"})
CALLS = frozenset({
    "torch.load", "torch.jit.load", "torch.hub.load", "torch.package.PackageImporter", "yaml.load", "yaml.unsafe_load",
    "yaml.full_load", "yaml.load_all", "numpy.load", "np.load", "pandas.read_pickle", "torch.serialization.load",
})  # fmt: skip
# Which of these a module can be said `from ... import` of.
NAMES = {tuple(call.rsplit(".", 1)) for call in CALLS}


def findings(source: str) -> Iterator[str]:
    """Name what a source has that it should not, each with its line."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                found = [alias.name for alias in names if alias.name.split(".")[0] in MODULES]
            case ast.ImportFrom(module=str(module), names=names):
                found = [module] if module.split(".")[0] in MODULES else []
                found += [f"{module}.{alias.name}" for alias in names if (module, alias.name) in NAMES]
            case ast.Call(func=ast.Name(id=name)) if name in BUILTINS:
                found = [name]
            case ast.Attribute():
                dotted = ast.unparse(node)
                found = [dotted] if dotted in CALLS or dotted.startswith("builtins.") else []
            case _:
                found = []
        for what in found:
            yield f"line {getattr(node, 'lineno', 0)}: {what}"


def sources() -> list[Path]:
    return [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def test_there_is_nothing_of_the_kind_anywhere() -> None:
    paths = sources()
    assert len(paths) > 250
    found = {
        str(path.relative_to(ROOT)): bad for path in paths if (bad := [*findings(path.read_text(encoding="utf-8"))])
    }
    assert found == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import os, pickle as p",
        "from pickle import loads",
        "import cloudpickle",
        "from marshal import load",
        "eval('1')",
        "def f():\n    exec(x)",
        "compile(x, '', 'exec')",
        "torch.load(path)",
        "load = torch.load",
        "from torch import load",
        "yaml.load(text, Loader=yaml.SafeLoader)",
        "np.load(path, allow_pickle=True)",
        "builtins.eval(x)",
        "__import__(name)",
    ],
)
def test_it_would_be_found(source: str) -> None:
    assert [*findings(source)]


@pytest.mark.parametrize("source", ["model.eval()", "re.compile(x)", "json.load(file)", "torch.compile(model)"])
def test_what_is_harmless_is_not(source: str) -> None:
    assert not [*findings(source)]
