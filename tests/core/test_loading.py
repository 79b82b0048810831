from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import IterableDataset

from paceline.errors import JobImportError, UsageError
from paceline.job import Job, overrides
from paceline.loading import build_dataset, build_module, build_optimizer, load_job
from tests.jobs import DigitsLike, Tiny

GOOD = """
import torch
from paceline.job import Job
from helper_beside_the_job import FACTOR

class Good(Job):
    def model(self): return torch.nn.Linear(FACTOR, 1)
    def dataset(self): return [(torch.zeros(FACTOR), torch.zeros(1))] * 4
    def loss(self, model, batch): return model(batch[0]).mean()
    def optimizer(self, model): return torch.optim.SGD(model.parameters(), lr=0.1)

class Half(Job):
    def model(self): return torch.nn.Linear(2, 1)
    def dataset(self): return []

class Raising(Good):
    def __init__(self):
        raise RuntimeError("no such corpus")

class Plain: pass
"""


@pytest.fixture
def job_file(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "helper_beside_the_job.py").write_text("FACTOR = 3\n")
    file = tmp_path / "my_job.py"
    file.write_text(GOOD)
    path, modules = list(sys.path), set(sys.modules)
    yield file
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def refusal(spec: str) -> str:
    with pytest.raises(UsageError) as caught:
        load_job(spec)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_job_is_loaded_from_a_file_with_its_neighbours(job_file: Path) -> None:
    job = load_job(f"{job_file}:Good")
    assert isinstance(job, Job)
    assert isinstance(job.model(), nn.Linear)
    assert job.data is None


def test_a_job_is_loaded_from_a_module(job_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(job_file.parent)
    assert type(load_job("my_job:Good")).__name__ == "Good"


def test_the_data_folder_reaches_the_job(job_file: Path, tmp_path: Path) -> None:
    assert load_job(f"{job_file}:Good").data is None
    assert load_job(f"{job_file}:Good", data=str(tmp_path)).data == tmp_path


def test_a_data_folder_that_is_not_there_is_named(job_file: Path) -> None:
    with pytest.raises(UsageError, match=r"data is 'some/where': expected a folder"):
        load_job(f"{job_file}:Good", data="some/where")


def test_a_job_file_may_be_named_like_a_library(job_file: Path) -> None:
    named = job_file.with_name("torch.py")
    named.write_text(GOOD.replace("import torch", "import torch.nn", 1))
    load_job(f"{job_file}:Good")
    assert sys.modules["torch"] is torch


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("FILE", "does not name a class: expected path/file.py:Class"),
        ("FILE:", "does not name a class"),
        ("missing/job.py:Good", "job file 'missing/job.py' does not exist"),
        ("no_such_package.jobs:Good", "module 'no_such_package.jobs' does not exist"),
        ("FILE:Godo", "has no class 'Godo': did you mean Good?"),
        ("FILE:Xyz", "its jobs are: Good, Half, Raising"),
        ("FILE:Plain", "Plain in FILE is not a job: expected a subclass of paceline.job.Job"),
        ("FILE:torch", "is not a job"),
        ("FILE:Half", "job Half in FILE lacks loss(), optimizer()"),
    ],
)
def test_a_bad_spec_is_refused_in_one_line(job_file: Path, spec: str, words: str) -> None:
    assert words.replace("FILE", str(job_file)) in refusal(spec.replace("FILE", str(job_file)))


def test_an_import_error_shows_the_users_traceback_and_not_ours(job_file: Path) -> None:
    source = "import math\n\ndef start():\n    import not_installed_anywhere\n\nstart()\n"
    job_file.with_name("broken.py").write_text(source)
    with pytest.raises(JobImportError) as caught:
        load_job(f"{job_file.with_name('broken.py')}:Job")
    assert str(caught.value) == (
        "importing broken.py of the job raised ModuleNotFoundError: No module named 'not_installed_anywhere'"
    )
    text = caught.value.traceback_text
    assert 'broken.py", line 6, in <module>' in text
    assert 'broken.py", line 4, in start' in text
    assert "loading.py" not in text
    assert "importlib" not in text


def test_an_import_error_inside_a_package_is_not_taken_for_a_missing_one(
    job_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(job_file.parent)
    job_file.with_name("breaks.py").write_text("import not_installed_anywhere\n")
    with pytest.raises(JobImportError, match="not_installed_anywhere"):
        load_job("breaks:Job")


@pytest.mark.parametrize(
    ("source", "words"),
    [("def f(:\n", "SyntaxError"), ("raise SystemExit(3)\n", "SystemExit: 3"), ("1/0\n", "ZeroDivisionError")],
)
def test_whatever_a_file_raises_is_reported(job_file: Path, source: str, words: str) -> None:
    bad = job_file.with_name("bad.py")
    bad.write_text(source)
    with pytest.raises(JobImportError, match=words) as caught:
        load_job(f"{bad}:Job")
    assert "bad.py" in caught.value.traceback_text
    # A second try meets the same error, not a half-imported module.
    with pytest.raises(JobImportError, match=words):
        load_job(f"{bad}:Job")


def test_a_constructor_that_raises_is_reported(job_file: Path) -> None:
    with pytest.raises(JobImportError, match=r"Raising\(\) of the job raised RuntimeError: no such corpus"):
        load_job(f"{job_file}:Raising")


class Changed(Tiny):
    """Tiny with some of its parts replaced."""

    def __init__(self, **parts: Any) -> None:
        self._parts = parts

    def model(self) -> Any:
        return self._parts.get("model", super().model)()

    def dataset(self) -> Any:
        return self._parts.get("dataset", super().dataset)()

    def optimizer(self, model: nn.Module) -> Any:
        return self._parts.get("optimizer", super().optimizer)(model)


def _frozen() -> nn.Module:
    return nn.Linear(2, 2).requires_grad_(False)


def _sharing() -> nn.Module:
    pair = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    pair["a"].weight.data = pair["b"].weight.data
    return pair


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nn.Sequential(nn.ReLU()), "model() gave a Sequential without trainable parameters"),
        (_frozen, "without trainable parameters"),
        (lambda: "model", "model() gave a str: expected a torch.nn.Module"),
        (lambda: nn.LazyLinear(3), "parameter weight is lazy"),
        (lambda: nn.Sequential(nn.Embedding(4, 2, sparse=True)), "0 is an embedding with sparse gradients"),
        (lambda: nn.Linear(2, 2, dtype=torch.complex64), "parameter weight is sparse or complex"),
        (_sharing, "parameters a.weight and b.weight share memory"),
    ],
)
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_a_model_that_cannot_be_trained_is_refused(make: Any, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        build_module(Changed(model=make), 1)
    assert words in str(caught.value)


class Stream(IterableDataset[int]):
    """It has a length, as some streams do."""

    def __iter__(self) -> Iterator[int]:
        return iter(range(10))

    def __len__(self) -> int:
        return 10


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (list, "dataset() is empty"),
        (lambda: [1, 2, 3], "dataset() has 3 samples, fewer than a task: micro-batch is 4"),
        (lambda: iter([1]), "without len() or indexing"),
        (lambda: Stream(), "gave a Stream, which is an IterableDataset: expected one with len() and indexing"),
    ],
)
def test_a_dataset_without_a_task_is_refused(make: Any, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        build_dataset(Changed(dataset=make), 1, 4)
    assert words in str(caught.value)


def test_a_part_without_a_task_is_refused() -> None:
    assert len(build_dataset(Changed(dataset=lambda: list(range(13))), 1, 4, 3)) == 13
    with pytest.raises(UsageError, match="has 13 samples, 3 in the smallest of 4 parts, fewer than a task"):
        build_dataset(Changed(dataset=lambda: list(range(13))), 1, 4, 4)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda model: torch.optim.LBFGS(model.parameters()), "optimizer LBFGS needs a closure"),
        (lambda model: torch.optim.SparseAdam(list(model.parameters())), "optimizer SparseAdam needs sparse gradients"),
        (lambda model: torch.optim.SGD(nn.Linear(2, 2).parameters()), "holds parameters in group 0 that are not the"),
        (lambda model: None, "optimizer() gave a NoneType"),
    ],
)
def test_an_optimizer_that_a_round_cannot_drive_is_refused(make: Any, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        build_optimizer(Changed(optimizer=make), nn.Linear(2, 2))
    assert words in str(caught.value)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam, torch.optim.RMSprop, torch.optim.Adagrad])
def test_common_optimizers_are_taken(optimizer: Any) -> None:
    module = nn.Linear(2, 2)
    build_optimizer(Changed(optimizer=lambda model: optimizer(model.parameters(), lr=0.1)), module)


def test_what_a_job_raises_while_building_is_reported() -> None:
    def fail() -> Any:
        raise FileNotFoundError("corpus.txt")

    with pytest.raises(JobImportError, match=r"dataset\(\) of the job raised FileNotFoundError: corpus.txt") as caught:
        build_dataset(Changed(dataset=fail), 1, 4)
    assert "in fail" in caught.value.traceback_text


def test_the_seed_makes_model_and_dataset() -> None:
    first, second = build_module(DigitsLike(), 5), build_module(DigitsLike(), 5)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])
    weights = [build_module(Tiny(), seed).state_dict()["weight"] for seed in (1, 2)]
    assert not torch.equal(weights[0], weights[1])
    random_data = Changed(dataset=lambda: torch.rand(4).tolist())
    assert build_dataset(random_data, 3, 1) == build_dataset(random_data, 3, 1)


def test_optional_methods_are_known_as_such() -> None:
    assert overrides(DigitsLike(), "evaluate")
    assert not overrides(DigitsLike(), "scheduler")
