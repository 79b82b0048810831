"""allocate: the exact minimiser, against brute force, the plain heap and the paper's lemmas."""

import heapq
import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.allocation import allocate
from paceline.allocation.exact import _keys_up_to
from paceline.errors import UsageError

Scores = npt.NDArray[np.float64]
Allocation = npt.NDArray[np.int64]


def by_plain_heap(scores: Scores, tasks: int) -> Allocation:
    """Give one task after the other to the smallest (a_i + 1) s_i, ties to the lowest index: the reference."""
    allocation = np.zeros(scores.size, dtype=np.int64)
    heap = [(float(score), worker) for worker, score in enumerate(scores)]
    heapq.heapify(heap)
    for _ in range(tasks):
        _, worker = heapq.heappop(heap)
        allocation[worker] += 1
        heapq.heappush(heap, (float((allocation[worker] + 1) * scores[worker]), worker))
    return allocation


def minimum_and_fewest_maximisers(scores: Scores, tasks: int) -> tuple[float, int]:
    """Try every allocation: the smallest possible max a_i s_i, and the fewest workers that attain it."""
    best = (np.inf, 0)
    for head in itertools.product(range(tasks + 1), repeat=scores.size - 1):
        if sum(head) <= tasks:
            loads = np.array([*head, tasks - sum(head)]) * scores
            best = min(best, (float(loads.max()), int(np.sum(loads == loads.max()))))
    return best


def assert_optimal(allocation: Allocation, scores: Scores, tasks: int) -> None:
    """Check the certificate of optimality (lemma D.1): no load exceeds what one more task would make elsewhere."""
    assert allocation.sum() == tasks
    assert allocation.min() >= 0
    assert (allocation * scores).max() <= ((allocation + 1) * scores).min()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(1)


@pytest.mark.parametrize("n", [17, 51, 153, 459])
def test_optimum_for_the_papers_sqrt_means(n: int, rng: np.random.Generator) -> None:
    means = 58.0 * np.sqrt(np.arange(1.0, n + 1))
    allocation = allocate(means, 23, rng)
    assert allocation.tolist() == [4, 2, 2, 2] + [1] * 13 + [0] * (n - 17)
    assert (allocation * means).max() == pytest.approx(239.14, abs=0.005)


@pytest.mark.parametrize("n", [17, 51, 153])
def test_optimum_for_the_papers_linear_means(n: int, rng: np.random.Generator) -> None:
    means = 58.0 * np.arange(1.0, n + 1)
    allocation = allocate(means, 23, rng)
    assert allocation.tolist() == [9, 4, 3, 2, 1, 1, 1, 1, 1] + [0] * (n - 9)
    assert (allocation * means).max() == 522.0


def test_optimum_for_four_workers_of_doubling_means(rng: np.random.Generator) -> None:
    assert allocate(np.array([0.01, 0.02, 0.04, 0.08]), 23, rng).tolist() == [13, 6, 3, 1]


def test_one_task_goes_to_the_best_worker(rng: np.random.Generator) -> None:
    assert allocate(np.array([3.0, 1.0, 2.0, 1.0]), 1, rng).tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("tasks", [1, 23, 10**9])
def test_one_worker_gets_everything(tasks: int, rng: np.random.Generator) -> None:
    assert allocate(np.array([0.3]), tasks, rng).tolist() == [tasks]


def test_positive_scores_draw_no_random_numbers(rng: np.random.Generator) -> None:
    before = rng.bit_generator.state
    for tasks in (3, 1000):
        allocate(np.array([1.0, 2.0]), tasks, rng)
    assert rng.bit_generator.state == before


def test_scores_are_left_alone(rng: np.random.Generator) -> None:
    scores = np.array([1e-300, 2.0, 1e300])
    for tasks in (2, 23, 1000):
        allocate(scores, tasks, rng)
    assert scores.tolist() == [1e-300, 2.0, 1e300]


@pytest.mark.parametrize("kind", ["real", "integer", "tenths"])
def test_small_cases_reach_the_minimum_with_the_fewest_maximisers(kind: str) -> None:
    rng = np.random.default_rng(7)
    for _ in range(60):
        n, tasks = int(rng.integers(1, 5)), int(rng.integers(1, 7))
        scores = rng.uniform(0.1, 3.0, n)
        if kind != "real":
            scores = np.ceil(scores) * (1.0 if kind == "integer" else 0.1)
        allocation = allocate(scores, tasks, rng)
        loads = allocation * scores
        assert allocation.sum() == tasks
        assert (loads.max(), np.sum(loads == loads.max())) == minimum_and_fewest_maximisers(scores, tasks)


positive_scores = st.one_of(
    st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=60),  # twelve orders of magnitude
    st.lists(st.integers(1, 4).map(float), min_size=1, max_size=60),  # masses of ties
    st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.6]), min_size=1, max_size=60),  # ties that rounding breaks or makes
    st.lists(st.floats(5e-324, 1e300), min_size=1, max_size=20),  # the whole range of float64
)
task_counts = st.one_of(st.integers(1, 70), st.integers(1, 1500))  # both sides of the heap's limit


@given(scores=positive_scores, tasks=task_counts)
@settings(max_examples=500, deadline=None)
def test_equal_to_the_plain_heap_unit_for_unit(scores: list[float], tasks: int) -> None:
    array = np.array(scores)
    with np.errstate(over="ignore"):
        expected = by_plain_heap(array, tasks)
    assert allocate(array, tasks, np.random.default_rng(0)).tolist() == expected.tolist()


@given(scores=positive_scores, tasks=st.integers(1, 2**40))
@settings(max_examples=300, deadline=None)
def test_certificate_of_optimality_for_any_number_of_tasks(scores: list[float], tasks: int) -> None:
    array = np.array(scores)
    with np.errstate(over="ignore"):
        assert_optimal(allocate(array, tasks, np.random.default_rng(0)), array, tasks)


@given(
    scores=st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=30).map(np.array),
    number=st.integers(1, 2**40),
    side=st.sampled_from([-np.inf, 0.0, np.inf]),
)
@settings(deadline=None)
def test_keys_are_counted_exactly_at_and_beside_a_key(scores: Scores, number: int, side: float) -> None:
    key = number * float(scores.min())
    level = key if side == 0.0 else float(np.nextafter(key, side))
    counts = _keys_up_to(level, scores, 1.0 / scores)
    assert np.all(counts * scores <= level)
    assert np.all((counts + 1.0) * scores > level)


@given(scores=positive_scores, tasks=task_counts, exponent=st.integers(-20, 20))
@settings(deadline=None)
def test_scale_does_not_matter(scores: list[float], tasks: int, exponent: int) -> None:
    array = np.clip(np.array(scores), 1e-200, 1e200)
    once, scaled = (allocate(array * factor, tasks, np.random.default_rng(0)) for factor in (1.0, 2.0**exponent))
    assert once.tolist() == scaled.tolist()


@given(scores=positive_scores, tasks=task_counts)
@settings(deadline=None)
def test_one_task_more_takes_nothing_away(scores: list[float], tasks: int) -> None:
    rng = np.random.default_rng(0)
    gained = allocate(np.array(scores), tasks + 1, rng) - allocate(np.array(scores), tasks, rng)
    assert sorted(gained.tolist()) == [0] * (len(scores) - 1) + [1]


@pytest.mark.parametrize("tasks", [23, 99_999, 10**5, 10**9])
@pytest.mark.parametrize("kind", ["exponential", "twelve orders", "equal", "integers"])
def test_many_workers(kind: str, tasks: int) -> None:
    n, rng = 100_000, np.random.default_rng(3)
    scores = {
        "exponential": rng.exponential(size=n) + 1e-9,
        "twelve orders": 10.0 ** rng.uniform(-6, 6, n),
        "equal": np.full(n, 0.3),
        "integers": rng.integers(1, 5, n).astype(np.float64),
    }[kind]
    allocation = allocate(scores, tasks, rng)
    assert_optimal(allocation, scores, tasks)
    if kind == "equal":
        share, remainder = divmod(tasks, n)
        assert allocation.tolist() == [share + 1] * remainder + [share] * (n - remainder)
    if tasks < n:
        assert allocation.tolist() == by_plain_heap(scores, tasks).tolist()


def test_expected_round_time_lies_between_the_papers_bounds() -> None:
    """l(a) <= E C(a) <= (1 + 4 eta ln B) l(a) for exponential task times (eta <= 2), by Monte Carlo."""
    rng = np.random.default_rng(5)
    means, tasks = 58.0 * np.sqrt(np.arange(1.0, 18.0)), 23
    allocation = allocate(means, tasks, rng)
    rounds = rng.gamma(shape=allocation, size=(20_000, 17)) * means  # a sum of a exponentials is a gamma variable
    proxy = float((allocation * means).max())
    assert proxy < rounds.max(axis=1).mean() < (1 + 4 * 2 * np.log(tasks)) * proxy


def test_zero_scores_get_all_tasks_evenly(rng: np.random.Generator) -> None:
    scores = np.array([0.0, 1.0, 0.0, 2.0, 0.0])
    seen = {tuple(allocate(scores, 7, rng).tolist()) for _ in range(200)}
    assert seen == {(3, 0, 2, 0, 2), (2, 0, 3, 0, 2), (2, 0, 2, 0, 3)}


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([], "at least 1 worker"),
        ([[1.0, 2.0]], r"scores have shape \(1, 2\)"),
        ([1.0, -2.0], r"score of worker 1 is -2\.0: expected a finite number >= 0"),
        ([1.0, 2.0, float("nan")], "score of worker 2 is nan"),
        ([float("inf"), 1.0], "score of worker 0 is inf"),
        ([0.0, float("nan")], "score of worker 1 is nan"),
    ],
)
def test_bad_scores_are_refused(scores: list[float], message: str, rng: np.random.Generator) -> None:
    with pytest.raises(UsageError, match=message):
        allocate(np.array(scores), 3, rng)


@pytest.mark.parametrize("tasks", [0, -1, 2**40 + 1])
def test_bad_numbers_of_tasks_are_refused(tasks: int, rng: np.random.Generator) -> None:
    with pytest.raises(UsageError, match=f"tasks per round is {tasks}: expected 1 to"):
        allocate(np.array([1.0]), tasks, rng)
