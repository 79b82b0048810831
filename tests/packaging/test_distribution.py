"""What is built for users: the wheel made from the sdist holds every portion and runs away from the sources."""

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import paceline
from paceline.version import __version__

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("api", "loggers", "allocation", "coordination", "simulation", "server", "worker", "protos", "cli")


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command that must succeed; return its standard output."""
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the sdist from the sources and the wheel from the unpacked sdist."""
    work = tmp_path_factory.mktemp("build")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", work, cwd=ROOT)
    with tarfile.open(work / f"paceline-{__version__}.tar.gz") as archive:
        archive.extractall(work, filter="data")
    unpacked = work / f"paceline-{__version__}"
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", work, cwd=unpacked)
    return work / f"paceline-{__version__}-py3-none-any.whl"


def test_direct_dependencies_are_fewer_than_fourteen() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert len(project["dependencies"]) < 14


def test_one_folder_has_the_package_and_the_others_are_added_to_it() -> None:
    assert [*ROOT.glob("*/paceline/__init__.py")] == [ROOT / "cli/paceline/__init__.py"]
    here = {str(ROOT / folder / "paceline") for folder in ("core", "server", "worker", "protos", "cli")}
    assert here <= set(paceline.__path__)
    assert paceline.__spec__ is not None
    assert paceline.__spec__.submodule_search_locations == paceline.__path__


@pytest.mark.slow
def test_the_wheel_holds_every_portion_once(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert len(names) == len(set(names))
    assert "paceline/__init__.py" in names
    assert "paceline/py.typed" in names
    for package in PACKAGES:
        assert f"paceline/{package}/__init__.py" in names
        assert f"paceline/{package}/py.typed" in names
    assert any(name.endswith(".proto") for name in names)
    assert not [name for name in names if "tests" in name or "__pycache__" in name]


@pytest.mark.slow
def test_the_installed_wheel_runs_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    # A fresh environment, which borrows only the dependencies: a folder on sys.path does not run the .pth file of the
    # editable install that may lie in it.
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv/bin/python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])", cwd=tmp_path).strip())
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    borrowed = Path(pytest.__file__).parents[1]
    (site / "dependencies.pth").write_text(f"{borrowed}\n")

    imports = "; ".join(f"import paceline.{package}" for package in (*PACKAGES, "job", "errors"))
    where = run(python, "-c", f"{imports}; print(*paceline.__path__)", cwd=tmp_path)
    assert where.split() == [str(site / "paceline")]
    assert (
        run(python, "-c", "import paceline; print(paceline.train.__module__)", cwd=tmp_path) == "paceline.api.train\n"
    )
    assert "Usage: paceline" in run(tmp_path / "venv/bin/paceline", "--help", cwd=tmp_path)
    # The templates came along.
    run(tmp_path / "venv/bin/paceline", "init", "begun", "--template", "tabular", cwd=tmp_path)
    run(python, "make_data.py", cwd=tmp_path / "begun")
    assert "Network of" in run(
        tmp_path / "venv/bin/paceline", "check", "job.py:Table", "--data", "data", cwd=tmp_path / "begun"
    )
