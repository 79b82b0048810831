"""paceline as users get it: the wheel, made from the sdist, in an environment of its own."""

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from paceline.version import __version__

ROOT = Path(__file__).resolve().parents[2]


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command that must succeed; return its standard output."""
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the sdist from the sources and the wheel from the unpacked sdist."""
    work = tmp_path_factory.mktemp("build")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", work, cwd=ROOT)
    with tarfile.open(work / f"paceline-{__version__}.tar.gz") as archive:
        archive.extractall(work, filter="data")
    unpacked = work / f"paceline-{__version__}"
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", work, cwd=unpacked)
    return work / f"paceline-{__version__}-py3-none-any.whl"


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel into a fresh environment, which borrows only the dependencies.

    A folder on sys.path does not run the .pth file of the editable install that may lie in it.
    """
    folder = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    python = folder / "venv/bin/python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])", cwd=folder).strip())
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    (site / "dependencies.pth").write_text(f"{Path(pytest.__file__).parents[1]}\n")
    return python
