"""The layer contracts of pyproject.toml hold, and would notice a violation.

import-linter has to see one namespace package through five folders, and what it cannot see it does not check; so the
contracts are also run on a copy of the sources into which a forbidden import was written.
"""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PORTIONS = ("core", "server", "worker", "protos", "cli")

# -S keeps the editable install's .pth out, so that the copy is the only paceline there is.
LINT = """
import sys
sys.path[:0] = sys.argv[1:]
from importlinter.cli import lint_imports
sys.exit(lint_imports(config_filename="pyproject.toml", no_cache=True))
"""


def lint(tree: Path) -> subprocess.CompletedProcess[str]:
    """Run the contracts of ``tree`` on the sources of ``tree``."""
    paths = [str(tree / portion) for portion in PORTIONS] + [sysconfig.get_paths()["purelib"]]
    command = [sys.executable, "-S", "-c", LINT, *paths]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for portion in PORTIONS:
        shutil.copytree(ROOT / portion, tmp_path / portion, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "tests/packaging").mkdir(parents=True)
    shutil.copy(ROOT / "tests/packaging/whole.py", tmp_path / "tests/packaging")
    return tmp_path


def test_the_sources_keep_the_layers(tree: Path) -> None:
    done = lint(tree)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("core/paceline/allocation", "time"),
        ("core/paceline/coordination", "torch"),
        ("core/paceline/allocation", "paceline.coordination"),
        ("core/paceline/coordination", "paceline.simulation"),
        ("core/paceline/simulation", "paceline.server"),
        ("protos/paceline/protos", "paceline.worker"),
        ("server/paceline/server", "paceline.worker"),
        ("worker/paceline/worker", "paceline.cli"),
        ("cli/paceline/cli", "paceline.protos"),
        ("cli/paceline/cli", "paceline.api"),
        ("core/paceline", "paceline.protos"),
        ("core/paceline", "paceline.server"),
        ("core/paceline", "paceline.worker"),
    ],
)
def test_an_import_that_points_up_is_noticed(tree: Path, module: str, forbidden: str) -> None:
    (tree / module / "intruder.py").write_text(f"import {forbidden}\n")
    done = lint(tree)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "intruder" in done.stdout
    assert forbidden in done.stdout


def test_an_import_through_another_module_is_noticed(tree: Path) -> None:
    (tree / "core/paceline/innocent.py").write_text("import threading\n")
    (tree / "core/paceline/allocation/intruder.py").write_text("import paceline.innocent\n")
    done = lint(tree)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "innocent" in done.stdout
