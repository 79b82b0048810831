"""What is built for users: the wheel made from the sdist holds every portion and runs away from the sources."""

import tomllib
import zipfile
from pathlib import Path

import pytest

import paceline
from paceline.version import __version__
from tests.packaging.installed import ROOT, run

PACKAGES = ("api", "loggers", "allocation", "coordination", "simulation", "server", "worker", "protos", "cli")


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
def test_the_installed_wheel_runs_from_another_folder(installed: Path, tmp_path: Path) -> None:
    imports = "; ".join(f"import paceline.{package}" for package in (*PACKAGES, "job", "errors"))
    where = run(installed, "-c", f"{imports}; print(*paceline.__path__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parents[1])
    module = run(installed, "-c", "import paceline; print(paceline.train.__module__)", cwd=tmp_path)
    assert module == "paceline.api.train\n"
    paceline = installed.with_name("paceline")
    assert "Usage: paceline" in run(paceline, "--help", cwd=tmp_path)
    assert run(paceline, "--version", cwd=tmp_path) == f"paceline {__version__}\n"
    # The templates came along.
    run(paceline, "init", "begun", "--template", "tabular", cwd=tmp_path)
    run(installed, "make_data.py", cwd=tmp_path / "begun")
    assert "Network of" in run(paceline, "check", "job.py:Table", "--data", "data", cwd=tmp_path / "begun")


@pytest.mark.slow
def test_the_sdist_has_what_a_cluster_needs(wheel: Path) -> None:
    sdist = wheel.with_name(f"paceline-{__version__}")
    for name in ("docker-compose.yml", "deploy/compose/tls.yml", "deploy/kubernetes/server.yaml", "server/Dockerfile"):
        assert (sdist / name).is_file(), name
    assert not list(sdist.rglob("*.key"))
