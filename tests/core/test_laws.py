from __future__ import annotations

import numpy as np
import pytest

from paceline.errors import UsageError
from paceline.laws import parse_law, parse_laws, parse_paces, per_worker

LAWS = ["const:0.01", "exp:0.02", "shifted-exp:0.01", "uniform:0.01:0.03", "lognormal:-4.5:0.5"]


@pytest.mark.parametrize("text", LAWS)
def test_a_law_reads_back_as_written(text: str) -> None:
    law = parse_law(text)
    assert str(law) == text
    assert parse_law(str(law)) == law


@pytest.mark.parametrize("text", LAWS)
def test_the_mean_is_that_of_the_draws(text: str) -> None:
    law, rng = parse_law(text), np.random.default_rng(5)
    draws = np.array([law.draw(rng) for _ in range(20_000)])
    assert (draws >= 0).all()
    assert draws.mean() == pytest.approx(law.mean_s, rel=0.03)


def test_means_are_as_defined() -> None:
    assert [parse_law(text).mean_s for text in LAWS] == pytest.approx([0.01, 0.02, 0.02, 0.02, np.exp(-4.5 + 0.125)])


def test_shifted_exp_never_draws_below_its_shift() -> None:
    law, rng = parse_law("shifted-exp:0.5"), np.random.default_rng(0)
    assert min(law.draw(rng) for _ in range(2000)) >= 0.5


def test_draws_are_reproducible() -> None:
    law = parse_law("exp:1")
    assert law.draw(np.random.default_rng(3)) == law.draw(np.random.default_rng(3))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "gamma:1",
            "'gamma' is unknown: expected one of const:seconds, exp:mean, shifted-exp:c, ",
        ),
        ("", "'' is unknown"),
        ("exp", "has 0 parameters: expected exp:mean"),
        ("uniform:1", "has 1 parameters: expected uniform:a:b"),
        ("const:1:2", "has 2 parameters: expected const:seconds"),
        ("const:-0.01", "has seconds -0.01: expected a finite number, not negative"),
        ("const:nan", "has seconds nan"),
        ("exp:inf", "has mean inf"),
        ("exp:fast", "has 'fast' for a number: expected exp:mean"),
        ("uniform:2:1", "has a > b"),
        ("lognormal:1:-1", "has log_sd -1"),
        ("lognormal:1000:1", "has a mean that is not finite"),
    ],
)
def test_a_bad_law_is_refused_in_one_line(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_law(text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_lists_are_one_per_worker_or_one_for_all() -> None:
    assert [law.mean_s for law in per_worker(parse_laws("const:1,const:2"), 2, "--delay")] == [1.0, 2.0]
    assert per_worker(parse_paces("3"), 4, "--pace") == (3.0, 3.0, 3.0, 3.0)
    with pytest.raises(UsageError, match=r"--pace has 2 values for 3 workers: expected one for each, or one for all"):
        per_worker(parse_paces("1,2"), 3, "--pace")


@pytest.mark.parametrize("text", ["0.5", "1,,2", "", "1,x", "-2", "nan", "inf"])
def test_a_bad_pace_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected"):
        parse_paces(text)
