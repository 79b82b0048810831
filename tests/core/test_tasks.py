from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.tasks import epoch_order, task_samples, task_seed


def test_the_stream_is_frozen() -> None:
    """Golden: a change here makes runs of another version irreproducible and mixed versions disagree."""
    assert task_samples(1, 0, 6, 10).tolist() == [0, 5, 2, 3, 7, 1]
    assert task_samples(1, 1, 6, 10).tolist() == [4, 8, 9, 6, 9, 3]
    assert task_samples(1, 1_000_000_007, 6, 10).tolist() == [7, 0, 3, 6, 2, 9]
    assert task_seed(1, 5, "loading") == 2029862476976075725
    assert task_seed(1, 5, "computing") == 3493843386834820144


@given(st.integers(1, 40), st.data(), st.integers(0, 2**63 - 1))
def test_every_sample_comes_once_per_epoch(n_samples: int, data: st.DataObject, seed: int) -> None:
    micro_batch = data.draw(st.integers(1, n_samples))
    stream = np.concatenate([task_samples(seed, task, micro_batch, n_samples) for task in range(3 * n_samples)])
    for epoch in range(len(stream) // n_samples):
        assert sorted(stream[epoch * n_samples : (epoch + 1) * n_samples]) == list(range(n_samples))


def test_a_task_may_straddle_two_epochs() -> None:
    straddling = task_samples(4, 3, 3, 10)
    assert straddling.tolist() == [epoch_order(4, 0, 10)[9], *epoch_order(4, 1, 10)[:2]]


def test_tasks_are_int64_of_the_full_length() -> None:
    for task in range(20):
        samples = task_samples(0, task, 7, 11)
        assert samples.shape == (7,)
        assert samples.dtype == np.int64


def test_epochs_and_seeds_give_other_orders() -> None:
    orders = {tuple(epoch_order(seed, epoch, 50)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


def test_a_cached_order_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        task_samples(0, 0, 4, 10)[0] = 3


@pytest.mark.parametrize(("task", "micro_batch", "n_samples"), [(-1, 1, 5), (0, 0, 5), (0, 6, 5), (0, 1, 0)])
def test_impossible_tasks_are_refused(task: int, micro_batch: int, n_samples: int) -> None:
    with pytest.raises(ValueError, match="no such task"):
        task_samples(0, task, micro_batch, n_samples)


def test_seeds_differ_by_task_phase_and_run_and_fit_a_generator() -> None:
    seeds = {task_seed(s, t, p) for s in range(10) for t in range(100) for p in ("loading", "computing")}
    assert len(seeds) == 2000
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_tasks_of_an_epoch_share_its_permutation() -> None:
    epoch_order.cache_clear()
    for task in range(1000):
        task_samples(0, task, 32, 60_000)
    assert epoch_order.cache_info().misses == 1


@pytest.mark.parametrize("parts", [1, 3, 4])
def test_each_part_has_samples_of_its_own_and_once_an_epoch(parts: int) -> None:
    n_samples, micro_batch = 26, 2
    for part in range(parts):
        first, end = part * n_samples // parts, (part + 1) * n_samples // parts
        mine = [task_samples(5, part + parts * k, micro_batch, n_samples, parts) for k in range(end - first)]
        # So many tasks of two samples are two epochs of the part.
        assert sorted(np.concatenate(mine).tolist()) == sorted([*range(first, end)] * 2)


def test_parts_are_shuffled_each_in_its_own_way() -> None:
    orders = [task_samples(5, part, 10, 20, 2) - 10 * part for part in (0, 1)]
    assert orders[0].tolist() != orders[1].tolist()
    with pytest.raises(ValueError, match="no such task"):
        task_samples(0, 0, 11, 20, 2)
