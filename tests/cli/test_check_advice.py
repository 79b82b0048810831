"""What check advises follows from its figures."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.cli.check_advice import TASKS_EACH, RoundCosts, computing_s, needed_rate, suggest, transfer_share

COSTS = RoundCosts(task_s=0.1, update_s=0.01, worker_bytes=2_000_000, workers=4, tasks=16, epoch_tasks=1e6)
SECONDS = st.floats(1e-4, 100.0)


@given(st.builds(RoundCosts, task_s=SECONDS, update_s=SECONDS, worker_bytes=st.integers(1, 10**12),
                 workers=st.integers(1, 1000), tasks=st.integers(1, 10**6), epoch_tasks=SECONDS))  # fmt: skip
def test_on_a_link_that_is_just_enough_transfer_takes_a_fifth_of_a_round(costs: RoundCosts) -> None:
    assert transfer_share(costs, needed_rate(costs)) == pytest.approx(0.2)


def test_a_worker_without_a_whole_task_still_computes_one() -> None:
    assert computing_s(dataclasses.replace(COSTS, tasks=1), 1) == 0.1
    assert computing_s(COSTS, 16) == pytest.approx(0.4)


def test_fast_links_leave_the_fewest_tasks_that_can_be_shared_unequally() -> None:
    suggestion = suggest(COSTS, 1e9)
    assert suggestion.tasks == 4 * TASKS_EACH
    assert "4 workers x 4 tasks: with fewer, unequal workers cannot be given unequal shares" in suggestion.reason


@given(st.floats(1e4, 1e9), SECONDS, st.integers(1, 50))
def test_on_slow_links_workers_compute_four_fifths_of_a_round_and_no_task_is_asked_for_in_vain(
    link: float, task_s: float, workers: int
) -> None:
    costs = dataclasses.replace(COSTS, task_s=task_s, workers=workers, epoch_tasks=1e12)
    tasks = suggest(costs, link).tasks
    waiting_s = costs.worker_bytes / link + costs.update_s + 0.005

    def share(each: int) -> float:
        return each * task_s / (each * task_s + waiting_s)

    each, rest = divmod(tasks, workers)
    assert rest == 0
    assert share(each) >= 0.8 - 1e-9
    assert each == TASKS_EACH or share(each - 1) < 0.8 + 1e-9


def test_the_reason_names_what_is_waited_for() -> None:
    suggestion = suggest(COSTS, 1e6)
    assert suggestion.tasks == 4 * 81
    assert "2 s of transfer at 8 Mbit/s, 0.01 s of update, 0.005 s of messages" in suggestion.reason


def test_short_tasks_are_told_of() -> None:
    assert "a larger --micro-batch" in suggest(dataclasses.replace(COSTS, task_s=0.001), 1e9).reason
    assert "a larger --micro-batch" in suggest(dataclasses.replace(COSTS, task_s=0.001, epoch_tasks=5), 1e9).reason
    assert "micro-batch" not in suggest(COSTS, 1e9).reason


@pytest.mark.parametrize(("link", "remedy"), [(1e9, "a smaller --micro-batch"), (1e6, "faster links")])
def test_no_more_tasks_than_an_epoch_has_are_suggested(link: float, remedy: str) -> None:
    suggestion = suggest(dataclasses.replace(COSTS, epoch_tasks=9.5), link)
    assert suggestion.tasks == 9
    assert remedy in suggestion.reason
