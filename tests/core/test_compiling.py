"""torch.compile in a worker: used where it works, left away with a word where it does not."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from paceline.errors import TaskError
from paceline.flat import build_model
from paceline.gradients import ComputeSettings, TaskRunner
from paceline.loading import build_dataset
from tests.jobs import DigitsLike

# Of torch itself, which warnings are errors for here.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch", "ignore::FutureWarning:torch")

COMPILER = shutil.which("g++") or shutil.which("clang++")


@pytest.fixture(autouse=True)
def fresh_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let nothing come out of an earlier test's cache."""
    import torch._dynamo
    import torch._inductor.config

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def runner_of(job: Any, **settings: Any) -> TaskRunner:
    chosen = ComputeSettings(**{"seed": 1, "micro_batch": 8, "compile": True, **settings})
    return TaskRunner(job, build_model(job, 1), build_dataset(job, 1, chosen.micro_batch), chosen)


def sum_of(runner: TaskRunner, tasks: list[int]) -> torch.Tensor:
    total = runner.new_sum()
    for task in tasks:
        done = runner.compute_as_it_fits(runner.load(task))
        assert done is not None
        runner.accumulate(total, done)
    return total.segments[0].clone()


class NoDropout(DigitsLike):
    """Compiled dropout draws other numbers."""

    def model(self) -> nn.Module:
        module = super().model()
        assert isinstance(module, nn.Sequential)
        module[5] = nn.Identity()
        return module


@pytest.mark.slow
@pytest.mark.skipif(COMPILER is None, reason="torch.compile needs a C++ compiler on the CPU")
def test_a_compiled_model_gives_the_same_gradients_but_for_rounding() -> None:
    from torch._dynamo.utils import counters

    compiled = runner_of(NoDropout())
    notices: list[str] = []
    compiled.notice = notices.append
    got = sum_of(compiled, [1, 2])
    assert not notices
    assert counters["stats"]["unique_graphs"] == 1
    assert torch.allclose(got, sum_of(runner_of(NoDropout(), compile=False), [1, 2]), atol=1e-4, rtol=1e-4)
    assert torch.equal(got, sum_of(compiled, [1, 2]))


@pytest.mark.slow
@pytest.mark.skipif(COMPILER is None, reason="torch.compile needs a C++ compiler on the CPU")
def test_more_shapes_than_torch_compiles_are_said_and_computed_without() -> None:
    import torch._dynamo

    notices: list[str] = []
    # Slices of 3, 3 and 2 samples.
    runner = runner_of(NoDropout(), micro_steps=3)
    runner.notice = notices.append
    with torch._dynamo.config.patch(recompile_limit=1):
        got = sum_of(runner, [1])
    assert len(notices) == 1
    assert torch.equal(got, sum_of(runner_of(NoDropout(), compile=False, micro_steps=3), [1]))


@pytest.fixture
def no_compiler() -> Iterator[None]:
    """Let the compiler of C++ be one that is not there."""
    import torch._inductor.config

    with torch._inductor.config.patch({"cpp.cxx": (None, "/nowhere/g++")}):
        yield


@pytest.mark.usefixtures("no_compiler")
def test_a_worker_without_a_compiler_says_so_and_computes_as_it_is() -> None:
    runner = runner_of(NoDropout())
    notices: list[str] = []
    runner.notice = notices.append
    assert torch.equal(sum_of(runner, [1, 2]), sum_of(runner_of(NoDropout(), compile=False), [1, 2]))
    assert len(notices) == 1
    assert "cannot be compiled, and is computed without" in notices[0]
    assert "\n" not in notices[0]


@pytest.mark.usefixtures("no_compiler")
def test_with_exact_sums_a_worker_that_cannot_compile_fails_by_name() -> None:
    runner = runner_of(NoDropout(), sums="exact")
    with pytest.raises(TaskError, match=r"task 1: .*; with exact sums all workers must compile the model"):
        sum_of(runner, [1])


def test_what_the_job_itself_raises_is_no_trouble_of_the_compiler() -> None:
    class Raises(NoDropout):
        def loss(self, model: nn.Module, batch: Any) -> Any:
            raise ValueError("of its own")

    notices: list[str] = []
    runner = runner_of(Raises())
    runner.notice = notices.append
    with pytest.raises(TaskError, match="raised ValueError: of its own"):
        sum_of(runner, [1])
    assert not notices


def test_pictures_are_laid_out_channels_last() -> None:
    class Looking(NoDropout):
        def loss(self, model: nn.Module, batch: Any) -> Any:
            seen.append(batch[0].is_contiguous(memory_format=torch.channels_last))
            return super().loss(model, batch)

        def dataset(self) -> Any:
            images, labels = super().dataset().tensors
            return torch.utils.data.TensorDataset(images.expand(-1, 3, -1, -1).contiguous(), labels)

        def model(self) -> nn.Module:
            module = super().model()
            assert isinstance(module, nn.Sequential)
            module[0] = nn.Conv2d(3, 8, 3, padding=1)
            return module

    seen: list[bool] = []
    laid_out = sum_of(runner_of(Looking(), compile=False, channels_last=True), [1])
    plain = sum_of(runner_of(Looking(), compile=False), [1])
    assert seen == [True, False]
    assert torch.allclose(laid_out, plain, atol=1e-4, rtol=1e-4)
