"""allocate_with_newcomers: the paper's decision for founders, a bounded share for late joiners."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.allocation import PAPER, allocate, allocate_with_newcomers, ata_empirical_scores
from paceline.errors import UsageError


@given(
    workers=st.lists(st.tuples(st.sampled_from([0.0, 0.0, 0.5, 1.0, 2.5]), st.booleans()), min_size=1, max_size=30),
    tasks=st.integers(1, 100),
    seed=st.integers(0, 9),
)
def test_every_task_is_given_and_newcomers_get_a_bounded_share(
    workers: list[tuple[float, bool]], tasks: int, seed: int
) -> None:
    scores, founders = np.array([score for score, _ in workers]), np.array([founder for _, founder in workers])
    allocation = allocate_with_newcomers(scores, tasks, founders, np.random.default_rng(seed))
    assert allocation.sum() == tasks
    newcomers = ~founders & (scores == 0)
    bound = -(-tasks // scores.size)
    assert allocation[newcomers].max(initial=0) <= bound
    if 0 < newcomers.sum() * bound <= tasks:
        assert set(allocation[newcomers].tolist()) == {bound}


@given(
    scores=st.lists(st.sampled_from([0.0, 0.3, 1.0, 2.5]), min_size=1, max_size=30),
    tasks=st.integers(1, 100),
    seed=st.integers(0, 9),
)
def test_without_late_joiners_decision_and_draws_are_the_papers(scores: list[float], tasks: int, seed: int) -> None:
    array = np.array(scores)
    ours, papers = np.random.default_rng(seed), np.random.default_rng(seed)
    everyone = np.ones(array.size, dtype=np.bool_)
    allocation = allocate_with_newcomers(array, tasks, everyone, ours)
    assert allocation.tolist() == allocate(array, tasks, papers).tolist()
    assert ours.bit_generator.state == papers.bit_generator.state


def test_a_late_joiner_with_a_score_is_a_worker_like_any_other() -> None:
    scores, founders = np.array([0.01, 0.02, 0.04, 0.08]), np.array([False, True, True, False])
    assert allocate_with_newcomers(scores, 23, founders, np.random.default_rng(0)).tolist() == [13, 6, 3, 1]


def test_the_rest_is_allocated_exactly_among_positive_scores() -> None:
    scores, founders = np.array([0.01, 0.0, 0.02, 0.04, 0.08]), np.array([True, False, True, True, True])
    allocation = allocate_with_newcomers(scores, 28, founders, np.random.default_rng(0))
    rest = allocate(scores[founders], 22, np.random.default_rng(0))
    assert allocation[1] == 6  # ceil(28 / 5)
    assert allocation[founders].tolist() == rest.tolist()


def test_the_rest_goes_evenly_to_founders_with_score_zero_if_there_are_any() -> None:
    scores, founders = np.array([0.0, 0.5, 0.0, 0.0]), np.array([True, True, True, False])
    assert allocate_with_newcomers(scores, 8, founders, np.random.default_rng(0)).tolist() == [3, 0, 3, 2]


def test_newcomers_alone_share_everything() -> None:
    allocation = allocate_with_newcomers(np.zeros(3), 10, np.zeros(3, dtype=np.bool_), np.random.default_rng(0))
    assert sorted(allocation.tolist()) == [3, 3, 4]


def test_more_newcomers_than_tasks_take_turns() -> None:
    scores, founders = np.array([0.1] + [0.0] * 9), np.array([True] + [False] * 9)
    rng = np.random.default_rng(0)
    counts = sum(allocate_with_newcomers(scores, 4, founders, rng) for _ in range(200))
    assert np.asarray(counts)[0] == 0
    assert np.asarray(counts)[1:].min() > 60  # 89 on average


def test_a_late_joiner_has_a_score_after_28_rounds_and_nobody_stands_idle_meanwhile() -> None:
    """The example of ADR-0001: it joins 16 equal workers in round 5,000, B = 23, ATA-Empirical with preset paper."""
    rng = np.random.default_rng(0)
    founders = np.array([True] * 16 + [False])
    done, rounds = np.array([7000] * 16 + [0]), np.array([5000] * 16 + [1])
    allocations = []
    while (scores := ata_empirical_scores(done, done * 0.1, rounds, PAPER.ata_empirical))[16] == 0.0:
        allocations.append(allocate_with_newcomers(scores, 23, founders, rng))
        done, rounds = done + allocations[-1], rounds + 1
    assert len(allocations) == 28
    assert {int(allocation[16]) for allocation in allocations} == {2}
    assert min(int(allocation[:16].min()) for allocation in allocations) == 1


def test_masks_of_another_length_are_refused() -> None:
    with pytest.raises(UsageError, match=r"founders have shape \(3,\): expected that of the scores, \(2,\)"):
        allocate_with_newcomers(np.ones(2), 3, np.ones(3, dtype=np.bool_), np.random.default_rng(0))
