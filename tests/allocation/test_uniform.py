"""spread: even shares over the chosen workers, the remainder to random distinct ones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.allocation import spread
from paceline.allocation.uniform import FEW
from paceline.errors import UsageError


@given(
    tasks=st.integers(1, 200),
    mask=st.lists(st.booleans(), min_size=1, max_size=50).filter(any),
    seed=st.integers(0, 99),
)
def test_shares_differ_by_at_most_one_and_add_up(tasks: int, mask: list[bool], seed: int) -> None:
    chosen = np.array(mask)
    allocation = spread(tasks, chosen, chosen.size, np.random.default_rng(seed))
    assert allocation.sum() == tasks
    assert allocation[~chosen].sum() == 0
    share, remainder = divmod(tasks, int(chosen.sum()))
    assert sorted(allocation[chosen].tolist()) == [share] * (int(chosen.sum()) - remainder) + [share + 1] * remainder


def test_mask_and_indices_mean_the_same() -> None:
    mask = np.array([True, False, True, True, False])
    by_mask = spread(8, mask, 5, np.random.default_rng(4))
    by_index = spread(8, np.flatnonzero(mask), 5, np.random.default_rng(4))
    assert by_mask.tolist() == by_index.tolist()


def test_fewer_tasks_than_workers_go_one_each_to_a_fresh_random_set() -> None:
    rng, everyone = np.random.default_rng(0), np.arange(40)
    counts = sum(spread(10, everyone, 40, rng) for _ in range(4000))
    assert np.abs(np.asarray(counts) / 4000 - 0.25).max() < 0.04  # six standard deviations


def test_the_remainder_is_fair() -> None:
    rng, everyone = np.random.default_rng(0), np.arange(5)
    counts = sum(spread(23, everyone, 5, rng) - 4 for _ in range(4000))
    assert np.abs(np.asarray(counts) / 4000 - 0.6).max() < 0.05


def test_no_random_numbers_are_drawn_without_a_remainder() -> None:
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    assert spread(10, np.arange(5), 5, rng).tolist() == [2] * 5
    assert rng.bit_generator.state == before


def test_nobody_chosen_is_refused() -> None:
    with pytest.raises(UsageError, match="no worker to allocate to"):
        spread(3, np.array([False, False]), 2, np.random.default_rng(0))


def test_no_task_is_refused() -> None:
    with pytest.raises(UsageError, match="tasks per round is 0"):
        spread(0, np.arange(2), 2, np.random.default_rng(0))


@pytest.mark.parametrize("tasks", [FEW, FEW + 1])
def test_both_ways_to_draw_a_remainder_are_fair(tasks: int) -> None:
    rng, n, rounds = np.random.default_rng(1), 6000, 400
    counts = np.sum([spread(tasks, np.arange(n), n, rng) for _ in range(rounds)], axis=0)
    deviation = np.sqrt(rounds * (tasks / n) * (1 - tasks / n))
    assert np.abs(counts - rounds * tasks / n).max() < 6 * deviation
