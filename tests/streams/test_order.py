"""The order in which samples of shards come: each once per epoch, a task in one shard or two."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.streams.order import ShardOrder

SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=8)


@settings(max_examples=80, deadline=None)
@given(SIZES, st.integers(1, 4), st.integers(1, 12), st.integers(0, 3))
def test_every_sample_comes_once_per_epoch(sizes: list[int], mixed: int, block: int, seed: int) -> None:
    n_samples = sum(sizes)
    block = min(block, n_samples)
    order = ShardOrder(sizes, mixed, block)
    epochs = 3
    stream = np.concatenate([order.task_samples(seed, task) for task in range(-(-epochs * n_samples // block))])
    for epoch in range(epochs):
        assert sorted(stream[epoch * n_samples : (epoch + 1) * n_samples]) == list(range(n_samples))


def test_a_task_depends_on_seed_and_number_alone_whatever_was_asked_before() -> None:
    asked, fresh = ShardOrder([30, 20, 25, 5], 2, 4), ShardOrder([30, 20, 25, 5], 2, 4)
    for task in (70, 3, 41, 0, 19):
        asked.task_samples(1, task)
        asked.task_samples(2, task)
    assert asked.task_samples(1, 11).tolist() == fresh.task_samples(1, 11).tolist()
    assert fresh.task_samples(1, 11).tolist() != fresh.task_samples(2, 11).tolist()


def shards_of(order: ShardOrder, task: int) -> set[int]:
    return {order.shard_of(index)[0] for index in order.task_samples(7, task).tolist()}


def test_a_task_lies_in_one_shard_where_shards_hold_whole_tasks_and_mostly_in_two_otherwise() -> None:
    even = ShardOrder([40] * 6, 3, 8)
    assert all(len(shards_of(even, task)) == 1 for task in range(60))
    odd = ShardOrder([370, 500, 410, 600], 2, 8)
    met = [len(shards_of(odd, task)) for task in range(235)]
    assert sum(number <= 2 for number in met) >= 233


@pytest.mark.parametrize(("mixed", "most"), [(1, 1), (3, 3)])
def test_as_many_shards_as_said_are_gone_through_at_a_time(mixed: int, most: int) -> None:
    order = ShardOrder([40] * 6, mixed, 8)
    tasks_of_group = 5 * mixed
    for first in range(0, 30, tasks_of_group):
        met = [next(iter(shards_of(order, task))) for task in range(first, first + tasks_of_group)]
        assert len(set(met)) == most
        assert mixed == 1 or met != sorted(met), "and they take turns"


def test_the_order_of_shards_and_of_samples_changes_with_the_epoch() -> None:
    order = ShardOrder([8] * 10, 1, 8)
    first = [order.task_samples(7, task).tolist() for task in range(10)]
    second = [order.task_samples(7, task).tolist() for task in range(10, 20)]
    assert [row[0] // 8 for row in first] != [row[0] // 8 for row in second]
    by_shard = {row[0] // 8: row for row in first}
    assert any(by_shard[row[0] // 8] != row for row in second)


def test_the_next_shards_are_those_that_come_next() -> None:
    order = ShardOrder([16] * 5, 2, 8)
    for task in range(20):
        # Groups of 4, 4 and 2 tasks.
        following = next(end for end in (4, 8, 10, 14, 18, 20) if end > task)
        expected = set().union(*(shards_of(order, other) for other in range(following, following + 2)))
        present, after = order.shards_at(7, task)
        assert expected <= set(after)
        assert shards_of(order, task) & set(present)


def test_memory_is_that_of_a_group_and_not_of_all_samples() -> None:
    order = ShardOrder([10_000] * 100_000, 2, 32)
    assert order.n_samples == 10**9
    assert order.task_samples(1, 12_345_678).shape == (32,)


def test_more_samples_in_a_task_than_there_are_is_an_error() -> None:
    with pytest.raises(ValueError, match="task 0 of 9 among 8 samples"):
        ShardOrder([5, 3], 1, 9).task_samples(0, 0)
