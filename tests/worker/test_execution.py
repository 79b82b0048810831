"""Pace, delay, limits and interruptions, with real tasks of real jobs and a clock of the test's own."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from torch import nn

from paceline.coordination.events import TaskFailure
from paceline.flat import build_model
from paceline.gradients import ComputeSettings, TaskRunner
from paceline.job import Job
from paceline.laws import parse_law
from paceline.loading import build_dataset
from paceline.worker.execution import Executor, FinishedTask, GivenUpTask, LoadedTask, Slowness, delay_rng
from paceline.worker.leases import FailedTask
from tests.jobs import FailsOnSample, Tiny


def always() -> bool:
    return True


class Bench:
    """An executor whose sleeps are recorded, on a clock that only sleeps and `own_s` per task move."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, job: Job, slowness: Slowness | None = None, *, own_s: float = 1.0
    ) -> None:
        self.now = 100.0
        self.slept: list[float] = []
        self.micro_steps = 0
        self.wake_after_s = float("inf")
        settings = ComputeSettings(seed=0, micro_batch=8, micro_steps=2)
        runner = TaskRunner(job, build_model(job, 0), build_dataset(job, 0, 8), settings)
        compute = runner.compute

        def slow_compute(*arguments: Any) -> Any:
            self.now += own_s
            return compute(*arguments)

        monkeypatch.setattr(runner, "compute", slow_compute)
        monkeypatch.setattr("paceline.worker.execution.monotonic", lambda: self.now)
        self.executor = Executor(runner, slowness or Slowness(), self._sleep, self._worked)

    def _sleep(self, seconds: float, wanted: Callable[[], bool]) -> None:
        self.slept.append(seconds)
        self.now += min(seconds, self.wake_after_s)

    def _worked(self) -> None:
        self.micro_steps += 1


def test_task_seconds_hold_compute_pace_and_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    slowness = Slowness(4.0, parse_law("const:0.5"), np.random.default_rng(1))
    bench = Bench(monkeypatch, Tiny(), slowness)
    outcome = bench.executor.run(3, 0.0, always)
    assert isinstance(outcome, FinishedTask)
    assert bench.slept == [0.5, 3.0 * 1.0]
    assert outcome.result.seconds == 4.5
    assert outcome.result.task == 3
    assert outcome.result.samples == 8


def test_worker_of_its_own_pace_never_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, Tiny())
    outcome = bench.executor.run(3, 0.0, always)
    assert isinstance(outcome, FinishedTask)
    assert bench.slept == []
    assert outcome.result.seconds == 1.0
    # One between its two slices, one at its end.
    assert bench.micro_steps == 2


def test_sleep_that_is_interrupted_gives_the_task_up_with_its_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, Tiny(), Slowness(1000.0))
    bench.wake_after_s = 2.0
    outcome = bench.executor.run(3, 0.0, lambda: not bench.slept)
    assert outcome == GivenUpTask(3.0)


def test_task_is_given_up_between_micro_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, Tiny(), Slowness(1000.0))
    assert bench.executor.run(3, 0.0, lambda: False) == GivenUpTask(1.0)
    assert bench.slept == []


def test_limit_ends_a_sleep_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, Tiny(), Slowness(1000.0))
    outcome = bench.executor.run(3, 5.0, always)
    assert isinstance(outcome, FailedTask)
    assert outcome.failure is TaskFailure.TIME_LIMIT
    assert bench.slept == [4.0]
    assert outcome.seconds == 5.0
    assert "5 s" in outcome.message


def test_limit_ends_a_slow_computation_at_a_micro_step(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, Tiny(), own_s=6.0)
    outcome = bench.executor.run(3, 5.0, always)
    assert isinstance(outcome, FailedTask)
    assert (outcome.failure, outcome.seconds) == (TaskFailure.TIME_LIMIT, 6.0)


def test_samples_loaded_ahead_count_with_their_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, Tiny())
    loaded = bench.executor.load(3)
    assert isinstance(loaded, LoadedTask)
    ahead = bench.executor.run(3, 0.0, always, LoadedTask(loaded.batch, 0.25))
    plain = bench.executor.run(3, 0.0, always)
    assert isinstance(ahead, FinishedTask)
    assert isinstance(plain, FinishedTask)
    assert ahead.result.seconds == 1.25
    assert ahead.result.loss_sum == plain.result.loss_sum


def test_failure_carries_the_jobs_traceback_and_the_next_task_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, FailsOnSample())
    outcomes = [bench.executor.run(task, 0.0, always) for task in range(8)]
    failed = [outcome for outcome in outcomes if isinstance(outcome, FailedTask)]
    assert len(failed) == 1
    assert failed[0].failure is TaskFailure.EXCEPTION
    assert "raise ValueError" in failed[0].traceback_text
    assert failed[0].seconds == 1.0


class Exits(Tiny):
    def loss(self, model: nn.Module, batch: Any) -> Any:
        raise SystemExit(3)


def test_job_that_calls_exit_fails_its_task_and_not_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = Bench(monkeypatch, Exits()).executor.run(0, 0.0, always)
    assert isinstance(outcome, FailedTask)
    assert "exit()" in outcome.message


def test_delays_are_the_workers_own_and_the_same_for_the_same_seed() -> None:
    def draws(seed: int | None, name: str) -> list[float]:
        slowness = Slowness(1.0, parse_law("exp:1"), delay_rng(seed, name))
        return [slowness.delay_s() for _ in range(5)]

    assert draws(7, "w1") == draws(7, "w1")
    every = [draws(7, "w1"), draws(7, "w2"), draws(8, "w1"), draws(None, "w1"), draws(None, "w1")]
    assert all(one != other for one, other in itertools.combinations(every, 2))


def test_cancel_in_the_delay_costs_no_computing(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, Tiny(), Slowness(1.0, parse_law("const:9"), np.random.default_rng(1)))
    bench.wake_after_s = 2.0
    assert bench.executor.run(3, 0.0, lambda: not bench.slept) == GivenUpTask(2.0)
    assert bench.micro_steps == 0


def test_limit_ends_a_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, Tiny(), Slowness(1.0, parse_law("const:9"), np.random.default_rng(1)))
    outcome = bench.executor.run(3, 5.0, always)
    assert isinstance(outcome, FailedTask)
    assert (outcome.failure, outcome.seconds, bench.slept) == (TaskFailure.TIME_LIMIT, 5.0, [5.0])
