"""Shapes parse, scale to any mean, and the compiled draws have the law that the shape says."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pytest

from paceline.errors import UsageError
from paceline.simulation.compiled.jit import compiled
from paceline.simulation.compiled.normal import normal_quantile
from paceline.simulation.compiled.streams import STEP, starting_streams, task_s
from paceline.simulation.shapes import Laws, Shape, five_distributions, parse_shape, scaled

DRAWS = 400_000


@compiled
def _draw(
    kinds: npt.NDArray[np.int64],
    parameters: npt.NDArray[np.float64],
    streams: npt.NDArray[np.uint64],
    worker: int,
    times: npt.NDArray[np.float64],
) -> None:
    for place in range(len(times)):
        times[place] = task_s(kinds, parameters, streams, worker)


def draws(laws: Laws, worker: int = 0, seed: int = 0) -> npt.NDArray[np.float64]:
    times = np.empty(DRAWS)
    _draw(laws.kinds, laws.parameters, starting_streams(laws.workers, seed), worker, times)
    return times


# Law, deviation and infimum of a time with mean 1.
MOMENTS = [
    ("const", 0.0, 1.0),
    ("exp", 1.0, 0.0),
    ("shifted-exp", 0.5, 0.5),
    ("uniform:0.5", 0.5 / math.sqrt(3), 0.5),
    ("uniform:1", 1 / math.sqrt(3), 0.0),
    ("lognormal:0.5", math.sqrt(math.exp(0.25) - 1), 0.0),
    ("lognormal:0", 0.0, 0.0),
    ("gamma:0.5", math.sqrt(2), 0.0),
    ("gamma:1", 1.0, 0.0),
    ("gamma:9", 1 / 3, 0.0),
    ("spikes:0.1:10", 0.3 * 9 / 1.9, 1 / 1.9),
    ("spikes:0.5:0", 1.0, 0.0),
]


@pytest.mark.parametrize(("law", "deviation", "infimum"), MOMENTS, ids=[row[0] for row in MOMENTS])
@pytest.mark.parametrize("mean_s", [0.001, 58.0])
def test_times_have_mean_deviation_and_infimum_of_the_law(
    law: str, deviation: float, infimum: float, mean_s: float
) -> None:
    laws = scaled(parse_shape(law), [mean_s])
    times = draws(laws)
    assert times.mean() == pytest.approx(mean_s, rel=max(6 * deviation / math.sqrt(DRAWS), 1e-9))
    assert times.std() == pytest.approx(deviation * mean_s, rel=0.03, abs=1e-9 * mean_s)
    assert laws.infima_s[0] == pytest.approx(infimum * mean_s)
    assert times.min() >= laws.infima_s[0]


@pytest.mark.parametrize(
    ("law", "cdf"),
    [
        ("exp", lambda x: 1 - math.exp(-x)),
        ("uniform:1", lambda x: x / 2),
        ("gamma:2", lambda x: 1 - math.exp(-2 * x) * (1 + 2 * x)),
        ("lognormal:1", lambda x: 0.5 * (1 + math.erf((math.log(x) + 0.5) / math.sqrt(2)))),
    ],
)  # fmt: skip
def test_times_follow_the_distribution_function(law: str, cdf: object) -> None:
    assert callable(cdf)
    times = draws(scaled(parse_shape(law), [1.0]))
    for x in (0.1, 0.5, 1.0, 1.7):
        share = cdf(x)
        assert np.mean(times <= x) == pytest.approx(share, abs=6 * math.sqrt(share * (1 - share) / DRAWS))


def test_the_five_distributions_have_a_constant_half_and_the_papers_deviations() -> None:
    m = 29.0
    deviations = [m, m / math.sqrt(12), m * math.sqrt(math.pi / 2 - 1), m * math.sqrt(m - 1), 1.0]
    laws = five_distributions([2 * m] * 5)
    for worker, deviation in enumerate(deviations):
        times = draws(laws, worker)
        assert times.min() >= laws.infima_s[worker] >= m
        # The lognormal has rare, long times: its mean takes long to be seen.
        assert times.mean() == pytest.approx(2 * m, rel=0.02 if worker == 3 else 0.005)
        if worker != 3:
            assert times.std() == pytest.approx(deviation, rel=0.01)
        else:
            assert np.log(times - m).mean() == pytest.approx(math.log(m) / 2, rel=0.01)
            assert np.log(times - m).std() == pytest.approx(math.sqrt(math.log(m)), rel=0.01)


def test_a_worker_has_the_same_times_whoever_else_is_there() -> None:
    few, many = scaled(Shape("exp"), [3.0] * 2), scaled(Shape("exp"), [3.0] * 50)
    assert draws(few, 1)[:100].tolist() == draws(many, 1)[:100].tolist()
    assert draws(few, 0)[:100].tolist() != draws(few, 1)[:100].tolist()
    assert draws(few, 0, seed=1)[:100].tolist() != draws(few, 0)[:100].tolist()


def test_a_skipped_task_is_one_step_of_the_stream() -> None:
    for law in ("const", "gamma:0.5", "lognormal:1"):
        laws, streams = scaled(parse_shape(law), [1.0]), starting_streams(1, 0)
        before = streams.copy()
        task_s(laws.kinds, laws.parameters, streams, 0)
        assert streams.tolist() == (before + STEP).tolist()


def test_streams_of_neighbours_are_not_correlated() -> None:
    laws = scaled(Shape("uniform", (1.0,)), [1.0] * 2)
    first, second = draws(laws, 0), draws(laws, 1)
    assert abs(np.corrcoef(first, second)[0, 1]) < 6 / math.sqrt(DRAWS)
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 6 / math.sqrt(DRAWS)


@pytest.mark.parametrize("text", ["const", "uniform:0.5", "spikes:0.1:10", "lognormal:0.25"])
def test_a_shape_is_written_as_it_is_read(text: str) -> None:
    assert str(parse_shape(f" {text} ")) == text


BAD = [
    ("expo", "did you mean exp?"),
    ("", "expected one of const, exp, shifted-exp"),
    ("exp:3", "exp:3 has 1 parameters: expected exp"),
    ("uniform", "uniform has 0 parameters: expected uniform:REL"),
    ("uniform:1.5", "REL from 0 to 1"),
    ("uniform:-0.1", "REL from 0 to 1"),
    ("uniform:nan", "REL from 0 to 1"),
    ("lognormal:-1", "SIGMA"),
    ("lognormal:inf", "no mean"),
    ("gamma:0", "SHAPE from 0.01"),
    ("gamma:x", "'x' for a number: expected gamma:SHAPE"),
    ("spikes:1:0", "not P = 1 with FACTOR = 0"),
    ("spikes:2:3", "probability P from 0 to 1"),
    ("spikes:0.1:inf", "no mean"),
]


@pytest.mark.parametrize(("text", "words"), BAD, ids=[text for text, _ in BAD])
def test_a_law_that_cannot_be_is_refused_in_one_line(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_shape(text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mean_s", [0.0, -1.0, math.nan, math.inf])
def test_means_that_cannot_be_are_refused(mean_s: float) -> None:
    for make in (lambda means: scaled(Shape("lognormal", (1.0,)), means), five_distributions):
        with pytest.raises(UsageError, match="mean of worker 2 is"):
            make([1.0, mean_s])
    with pytest.raises(UsageError, match="worker 4 is 2: expected more than 2"):
        five_distributions([2.0] * 5)


def test_normal_quantiles_are_those_of_the_standard_library() -> None:
    exact = NormalDist()
    for p in (2.0**-53, 1e-12, 1e-5, 0.01, 0.074, 0.076, 0.3, 0.5, 0.6, 0.925, 0.99, 1 - 1e-9, 1 - 2.0**-53):
        assert normal_quantile(p) == pytest.approx(exact.inv_cdf(p), rel=1e-14, abs=1e-15)
