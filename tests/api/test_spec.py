"""A job in hand becomes the spec by which other processes find it; what they could not find is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from paceline.api.spec import spec_of
from paceline.errors import UsageError
from paceline.loading import load_job
from tests.jobs import DigitsLike

ROOT = Path(__file__).resolve().parents[2]


class WithArguments(DigitsLike):
    def __init__(self, width: int = 8) -> None:
        self.width = width


class Outer:
    class Inner(DigitsLike):
        pass


def test_a_class_of_a_package_goes_by_its_module(tmp_path: Path) -> None:
    assert spec_of(DigitsLike, tmp_path) == "tests.jobs:DigitsLike"
    assert spec_of(DigitsLike(), tmp_path) == "tests.jobs:DigitsLike"
    assert spec_of("a.py:A", tmp_path) == "a.py:A"


def test_a_class_of_a_module_that_stands_alone_goes_by_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "alone_job.py").write_text("from tests.jobs import DigitsLike\nclass Mine(DigitsLike): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    from alone_job import Mine  # type: ignore[import-not-found]

    assert spec_of(Mine, tmp_path) == f"{tmp_path / 'alone_job.py'}:Mine"
    monkeypatch.chdir(tmp_path)
    assert spec_of(Mine, tmp_path) == "alone_job.py:Mine"


def test_what_others_could_not_make_is_refused(tmp_path: Path) -> None:
    class Local(DigitsLike):
        pass

    for job, words in (
        (Local, "is made inside of a function"),
        (Outer.Inner, "stands inside of another class"),
        (WithArguments(16), "made with arguments that other processes do not know"),
        (3, "job is 3: expected a class derived from paceline.Job"),
        (dict, "expected a class derived from paceline.Job"),
    ):
        with pytest.raises(UsageError, match=words):
            spec_of(job, tmp_path)


# A kernel keeps its cells where tracebacks find them, and runs them in a __main__ that has no file.
KERNEL = """
import linecache, sys
from paceline.api.spec import spec_of
from pathlib import Path

def cell(number, text):
    name = f"/tmp/kernel_1/{number}.py"
    linecache.cache[name] = (len(text), None, text.splitlines(True), name)
    exec(compile(text, name, "exec"), vars(sys.modules["__main__"]))

"""
CELLS = '''
cell(1, """
import torch.nn.functional as F
from torch import nn, ones
from torch.utils.data import TensorDataset
import paceline
WIDTH, NAMES = 4, {"a": (1, 2.5)}
table = ones(3)
""")
cell(2, """
def loss(model, batch):
    return helper(F.cross_entropy(model(batch[0]), batch[1]))

def helper(value):
    return value * NAMES["a"][0] if value > 1e9 else value
""")
cell(3, """
class Base(paceline.Job):
    def optimizer(self, model):
        from torch.optim import SGD
        return SGD(model.parameters(), lr=[0.1 for WIDTH in (1,)][0])
""")
cell(4, """
x = 1

@staticmethod
def unused(): pass

class Mine(Base):
    def model(self): return nn.Linear(WIDTH, 2)
    def dataset(self): return TensorDataset(ones(64, 4), ones(64).long())
    def loss(self, model, batch): return loss(model, batch)

class Uses(Mine):
    def dataset(self): return table

class Missing(Mine):
    def dataset(self): return nowhere

class Same(Mine): n = 1
""")
cell(5, """
class Same(Mine): n = 2
""")
'''


TOLD = """
import json
told = {}
for number, job in enumerate((Mine, Mine, Uses, Missing, Same)):
    try:
        told[number] = spec_of(job, Path("jobs"))
    except Exception as error:
        told[number] = f"{type(error).__name__}: {error}"
print(json.dumps([*told.values()]))
"""


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Run the cells; give the folder, and what was said of Mine, Mine, Uses, Missing and Same."""
    folder = tmp_path_factory.mktemp("notebook")
    command = [sys.executable, "-c", KERNEL + CELLS + TOLD]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def test_a_class_of_a_notebook_is_written_with_what_it_uses(kernel: tuple[Path, list[str]]) -> None:
    folder, (spec, *_) = kernel
    path, _, name = spec.rpartition(":")
    assert name == "Mine"
    text = (folder / path).read_text()
    for line in ("from torch import nn", "WIDTH = 4", "NAMES = {'a': (1, 2.5)}", "class Base(", "def helper("):
        assert text.count(line) <= 1
    assert "x = 1" not in text
    assert "unused" not in text
    assert text.index("def helper(") < text.index("def loss(model") < text.index("class Mine(")
    job = load_job(str(folder / spec))
    model, dataset = job.model(), job.dataset()
    optimizer = job.optimizer(model)
    assert optimizer.param_groups[0]["lr"] == 0.1
    value = job.loss(model, dataset[slice(0, 2)])  # type: ignore[index]
    assert isinstance(value, torch.Tensor)
    assert value.item() > 0


def test_the_same_cell_gives_the_same_file(kernel: tuple[Path, list[str]]) -> None:
    folder, (first, second, *_) = kernel
    assert first == second
    assert len([*(folder / "jobs").glob("mine_*.py")]) == 1


def test_a_class_without_methods_is_that_of_the_newest_cell(kernel: tuple[Path, list[str]]) -> None:
    folder, (*_, spec) = kernel
    assert "class Same(Mine): n = 2" in (folder / spec.rpartition(":")[0]).read_text()


def test_what_no_source_can_say_is_refused_by_name(kernel: tuple[Path, list[str]]) -> None:
    _, (_, _, uses, missing, _) = kernel
    assert "it uses table, a Tensor of this notebook: make it inside of the class" in uses
    assert "nowhere is not defined" in missing
    for name, said in (("Uses", uses), ("Missing", missing)):
        assert said.startswith(f"UsageError: job {name} is in no file that other processes could import, and ")
        assert said.endswith(
            f"put the class into a file of its own (%%writefile my_job.py) and give 'my_job.py:{name}'"
        )


def test_a_console_without_sources_is_told_to_use_a_file(tmp_path: Path) -> None:
    typed = "import paceline\nfrom paceline.api.spec import spec_of\nclass A(paceline.Job): pass\nspec_of(A, None)\n"
    done = subprocess.run([sys.executable], input=typed, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert "the source of A is not known; or put the class into a file" in done.stderr.strip().splitlines()[-1]
