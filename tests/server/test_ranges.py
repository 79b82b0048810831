from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from paceline.server.ranges import format_ranges, parse_ranges


def test_neighbours_are_joined_and_the_order_is_kept() -> None:
    assert format_ranges([0, 1, 2, 3, 4, 5, 9]) == "0-5,9"
    assert format_ranges([7, 3, 4, 5]) == "7,3-5"
    assert format_ranges([]) == ""


@given(st.lists(st.integers(0, 2**53)))
def test_what_is_written_is_read_back(tasks: list[int]) -> None:
    assert list(parse_ranges(format_ranges(tasks))) == tasks
