"""Loading in processes: the same bits, and what becomes of samples that raise, kill, hang or cannot travel."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from paceline.errors import TaskError
from paceline.settings import SharedSettings
from paceline.task_loading import TaskBatch
from paceline.tasks import task_samples
from paceline.worker.loader_process import LoaderSource
from paceline.worker.loaders import Loaders, LoadersError
from tests.worker.loader_jobs import BAD, SAMPLES, Labelled

JOBS = "tests/worker/loader_jobs.py"
SHARED = SharedSettings(seed=5, micro_batch=4, micro_steps=2)
SLICES = 2
LIMIT_S = 60.0


def source(job: str, shared: SharedSettings = SHARED) -> LoaderSource:
    return LoaderSource(f"{JOBS}:{job}", None, shared)


@contextlib.contextmanager
def loading(job: str, count: int = 2, limit_s: float = LIMIT_S) -> Iterator[Loaders]:
    loaders = Loaders(source(job), count, limit_s=limit_s, pin_memory=False, micro_steps=SLICES)
    try:
        yield loaders
    finally:
        loaders.close()
        loaders.join(LIMIT_S)


def take(loaders: Loaders, task: int) -> TaskBatch:
    until_s = time.monotonic() + LIMIT_S
    batch = loaders.take(task, lambda: time.monotonic() < until_s, lambda: None)
    assert batch is not None, f"task {task} did not come"
    return batch


def bad_task() -> int:
    return next(task for task in range(SAMPLES // 4) if BAD in task_samples(5, task, 4, SAMPLES))


def assert_same(batch: TaskBatch, expected: TaskBatch) -> None:
    assert (batch.task, batch.sizes) == (expected.task, expected.sizes)
    for part, wanted in zip(batch.parts, expected.parts, strict=True):
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(part, wanted, strict=True))


@pytest.mark.parametrize("count", [1, 3])
def test_tasks_are_those_that_would_be_loaded_here_in_whatever_order_they_are_taken(count: int) -> None:
    here = source("Augmented").open()
    order = [3, 4, 5, 0, 9, 8, 7, 6, 1, 2, 40]
    with loading("Augmented", count) as loaders:
        loaders.want(order[:5])
        for number, task in enumerate(order):
            assert_same(take(loaders, task), here.load(task, 2))
            loaders.want(order[number + 1 : number + 6])


def test_what_is_wanted_is_loaded_ahead_and_what_is_not_is_dropped() -> None:
    with loading("Augmented") as loaders:
        loaders.want([0, 1, 2, 3, 4, 5])
        take(loaders, 0)
        until_s = time.monotonic() + LIMIT_S
        while len(loaders.ready) < 4:
            assert time.monotonic() < until_s, loaders.ready
            time.sleep(0.01)
        assert loaders.ready == [1, 2, 3, 4]
        loaders.want([4, 7])
        assert loaders.ready == [4]
        assert take(loaders, 7).task == 7


def test_tasks_that_come_first_need_not_wait_for_room_that_later_ones_have_taken() -> None:
    with loading("Augmented") as loaders:
        loaders.want([20, 21, 22, 23])
        until_s = time.monotonic() + LIMIT_S
        while len(loaders.ready) < 4:
            assert time.monotonic() < until_s, loaders.ready
            time.sleep(0.01)
        loaders.want([1, 2, 3, 20, 21, 22, 23])
        for task in (1, 2, 3, 20, 21):
            assert take(loaders, task).task == task


def test_a_task_that_is_wanted_no_more_is_not_waited_for() -> None:
    with loading("Augmented") as loaders:
        assert loaders.take(0, lambda: False, lambda: None) is None
        assert take(loaders, 1).task == 1


def test_a_sample_that_raises_fails_its_task_by_name_and_no_other() -> None:
    bad = bad_task()
    with loading("Raises") as loaders:
        loaders.want([bad, bad + 1])
        with pytest.raises(TaskError, match=f"task {bad}: loading it raised OSError: picture 13 is broken") as caught:
            take(loaders, bad)
        assert "loader_jobs.py" in caught.value.traceback_text
        assert take(loaders, bad + 1).task == bad + 1


@pytest.mark.parametrize(("job", "limit_s"), [("Dies", LIMIT_S), pytest.param("Hangs", 8.0, marks=pytest.mark.slow)])
def test_a_sample_that_kills_or_stops_its_process_fails_its_task_by_name_and_no_other(job: str, limit_s: float) -> None:
    bad = bad_task()
    tasks = [bad - 1, bad, bad + 1, bad + 2]
    with loading(job, limit_s=limit_s) as loaders:
        loaders.want(tasks)
        for task in tasks:
            if task == bad:
                with pytest.raises(TaskError, match=f"task {bad}: twice a loader process did not survive"):
                    take(loaders, task)
            else:
                assert take(loaders, task).task == task


def test_batches_of_a_class_of_the_job_travel() -> None:
    with loading("AsDataclass") as loaders:
        batch = take(loaders, 2)
    assert all(type(part).__name__ == Labelled.__name__ for part in batch.parts)
    first: Any = batch.parts[0]
    assert (first.inputs.shape, first.names["first"][1]) == ((2, 4), "x")


@pytest.mark.parametrize(
    ("job", "why"),
    [
        ("Unsendable", r"its batches cannot be sent between processes: .*lambda"),
        ("OneProcess", r"dataset\(\) of the job raised RuntimeError: the file is locked"),
        ("Missing", r"has no class 'Missing'"),
    ],
)
def test_what_cannot_be_loaded_in_a_process_at_all_is_said_so(job: str, why: str) -> None:
    with loading(job) as loaders, pytest.raises(LoadersError, match=why):
        take(loaders, 0)


def test_a_data_folder_is_that_of_the_worker(tmp_path: Path) -> None:
    loaders = Loaders(
        LoaderSource(f"{JOBS}:Augmented", tmp_path / "gone", SHARED), 1, limit_s=LIMIT_S, pin_memory=False
    )
    with pytest.raises(LoadersError, match=r"data is .*gone"):
        take(loaders, 0)
    loaders.join(LIMIT_S)
