"""The rounds of the oracle, uniform and greedy, where no task time varies."""

from __future__ import annotations

import numpy as np
import pytest

from paceline.allocation import GREEDY, ORACLE, UNIFORM, expected_rounds
from paceline.errors import UsageError


def test_unequal_workers_by_hand() -> None:
    rounds = expected_rounds(np.array([1.0, 2.0, 4.0]), 7)
    # 4, 2 and 1 tasks all end after 4 s; uniform gives 3, 2, 2.
    assert (rounds[ORACLE].seconds, rounds[ORACLE].busy_s.tolist()) == (4.0, [4.0, 4.0, 4.0])
    assert (rounds[UNIFORM].seconds, rounds[UNIFORM].busy_s.tolist()) == (8.0, [3.0, 4.0, 8.0])
    assert (rounds[GREEDY].seconds, rounds[GREEDY].busy_s.tolist()) == (4.0, [4.0, 4.0, 4.0])


def test_the_oracle_leaves_out_whom_greedy_pays_for() -> None:
    rounds = expected_rounds(np.array([1.0, 1.0, 100.0]), 4)
    assert (rounds[ORACLE].seconds, rounds[ORACLE].busy_s.sum()) == (2.0, 4.0)
    assert (rounds[GREEDY].seconds, rounds[GREEDY].busy_s.sum()) == (2.0, 6.0)


def test_greedys_last_result_comes_when_results_are_counted_one_by_one() -> None:
    means = np.random.default_rng(3).uniform(0.1, 5.0, 17)
    ends = np.sort(np.concatenate([mean * np.arange(1, 24) for mean in means]))
    assert expected_rounds(means, 23)[GREEDY].seconds == pytest.approx(ends[22])


@pytest.mark.parametrize(("means", "tasks", "named"), [([], 4, "shape"), ([1.0, -1.0], 4, "worker 1"), ([1.0], 0, "0")])
def test_bad_input_is_named(means: list[float], tasks: int, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        expected_rounds(np.array(means), tasks)
