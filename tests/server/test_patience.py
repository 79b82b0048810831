"""A run whose metric becomes no better ends, done, and says so; what was counted outlives the server."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import pytest
from pydantic import ValidationError

from paceline.coordination.effects import Outcome
from paceline.errors import RunFailedError
from paceline.server.books import Books
from paceline.server.patience import Patience
from paceline.server.rundir import RunDir
from paceline.server.traffic import Traffic
from tests.server.raw_worker import RawWorker, serving, settings
from tests.server.records import snapshot, worker_snapshot

COUNTING = "tests/server/ending.py:Counting"


def ends_at(values: list[float], evaluations: int, *, more: bool = True) -> int | None:
    patience = Patience("score", more=more, evaluations=evaluations)
    for number, value in enumerate(values, start=1):
        if patience.measured(number, {"score": value}):
            return number
    return None


def test_evaluations_since_the_best_are_counted_anew_with_each_better_one() -> None:
    assert ends_at([1.0, 2.0, 2.0, 1.5, 3.0, 2.0, 2.5, 2.9], 3) == 8
    assert ends_at([1.0, 2.0, 3.0, 4.0], 1) is None
    assert ends_at([3.0, 2.0, 1.0, 1.0], 1, more=False) == 4
    assert ends_at([math.nan, math.nan], 2) == 2


def test_the_best_is_named() -> None:
    patience = Patience("error", more=False, evaluations=2)
    assert [patience.measured(number, {"error": value}) for number, value in ((4, 0.5), (8, 0.25), (12, 0.5))] == [
        ""
    ] * 3
    assert patience.measured(16, {"error": 0.3}) == "2 evaluations without a better error (the best: 0.25, of round 8)"


def test_a_metric_that_evaluate_does_not_give_fails_the_run() -> None:
    with pytest.raises(RunFailedError, match=r"patience waits for metric 'score', but the evaluation gave accuracy"):
        Patience("score", more=True, evaluations=2).measured(1, {"accuracy": 1.0})


def test_patience_without_a_metric_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValidationError, match="patience is 3, but no metric is named to wait for: expected --best METRIC"
    ):
        settings(tmp_path, patience=3)
    settings(tmp_path, patience=3, until="steps>=3")


async def test_a_run_ends_when_its_metric_becomes_no_better(tmp_path: Path) -> None:
    told = settings(tmp_path, job=COUNTING, rounds=None, epochs=100, best="steps:min", patience=3, eval_every=1)
    async with serving(told) as run, RawWorker(run.address, job=COUNTING) as worker:
        await worker.join()

        async def work() -> None:
            while True:
                lease = await worker.hear("lease")
                await worker.push(worker.contribution(lease, worker.payload(-8.0)))

        working = asyncio.create_task(work())
        result = await run.end()
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    assert result.outcome is Outcome.DONE
    assert result.reason.startswith("3 evaluations without a better steps (the best: ")
    assert result.summary["rounds"] >= 4


def test_what_was_counted_goes_on_counting_in_a_later_life(tmp_path: Path) -> None:
    def books(patience: Patience, folder: str) -> Books:
        told = settings(tmp_path / folder, best="steps", patience=2)
        workers = lambda: snapshot(worker_snapshot("w1"))  # noqa: E731
        return Books(told, RunDir.create(tmp_path / folder, told.job), Traffic(), workers, patience=patience)

    before, after = (Patience("steps", more=True, evaluations=2) for _ in range(2))
    before.measured(1, {"steps": 5.0})
    before.measured(2, {"steps": 4.0})
    kept = books(before, "a").state()
    books(after, "b")._restore(kept)
    assert after.measured(3, {"steps": 4.0}) == "2 evaluations without a better steps (the best: 5, of round 1)"
