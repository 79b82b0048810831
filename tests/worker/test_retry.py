from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from paceline.worker.retry import Retry, ceiling_s, limit_s, retry_delay_s


@given(attempt=st.integers(0, 10_000), elapsed_s=st.floats(0, 59.9), chance=st.floats(0, 1, exclude_max=True))
def test_attempts_are_at_most_two_seconds_apart_in_the_first_minute(
    attempt: int, elapsed_s: float, chance: float
) -> None:
    assert 0 < retry_delay_s(attempt, elapsed_s, chance) <= 2.0


@given(attempt=st.integers(0, 10_000), elapsed_s=st.floats(0, 1e6), chance=st.floats(0, 1, exclude_max=True))
def test_attempts_are_never_more_than_fifteen_seconds_apart(attempt: int, elapsed_s: float, chance: float) -> None:
    assert 0 < retry_delay_s(attempt, elapsed_s, chance) <= 15.0


def test_pauses_grow_to_fifteen_seconds() -> None:
    assert [ceiling_s(elapsed_s) for elapsed_s in (0, 14, 15, 59, 60, 300, 450, 3000)] == [
        *(0.5, 0.5, 2.0, 2.0, 2.0, 10.0, 15.0, 15.0)
    ]


def test_an_attempt_may_take_two_seconds_however_short_the_pauses() -> None:
    assert [limit_s(elapsed_s) for elapsed_s in (0, 14, 59, 300, 3000)] == [2.0, 2.0, 2.0, 10.0, 15.0]


def test_session_cut_for_a_moment_is_tried_several_times_before_its_worker_counts_as_lost() -> None:
    assert sum(retry_delay_s(attempt, 0.0, 0.999) for attempt in range(4)) < 1.0


def test_first_attempts_of_many_workers_are_spread() -> None:
    delays = {retry_delay_s(8, 20.0, chance) for chance in (0.0, 0.25, 0.5, 0.75)}
    assert delays == {1.0, 1.25, 1.5, 1.75}


def test_patience_counts_from_the_last_word_of_the_server() -> None:
    retry = Retry(10.0)
    assert retry.elapsed_s(100.0) == 0.0
    assert not retry.exhausted(109.9)
    assert retry.exhausted(110.0)
    retry.reset()
    assert not retry.exhausted(110.0)
    assert retry.exhausted(120.0)


def test_a_word_of_the_server_makes_the_next_pause_short_again() -> None:
    retry = Retry(600.0)
    for _ in range(10):
        retry.next_delay_s(0.0)
    assert retry.next_delay_s(0.0) >= 0.25
    retry.reset()
    assert retry.next_delay_s(0.0) <= 0.05


def test_attempts_that_take_long_are_no_further_apart() -> None:
    """Packets that are dropped: each attempt takes its whole time-out."""
    retry = Retry(600.0)
    now_s = 0.0
    for number in range(12):
        apart_s = 2.0 + retry.next_delay_s(now_s, spent_s=2.0)
        now_s += apart_s
        assert apart_s <= 2.06 or number == 0
    retry.reset()
    # The session that broke had lasted an hour: the pause is drawn nevertheless.
    assert 0.02 <= retry.next_delay_s(now_s, spent_s=3600.0) <= 0.05
