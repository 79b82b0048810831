from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.server.staging import FLOOR_BYTES_PER_S, FLOOR_WINDOW_S, Stage, StagePool


class Pushes:
    """A pool on a clock of its own, and what happened to its pushes."""

    def __init__(self, stages: int = 2, stalled_s: float = 30.0) -> None:
        self.now_s = 0.0
        self.pool = StagePool(stages, stalled_s, lambda: self.now_s)
        self.granted: list[int] = []
        self.slow: list[int] = []

    def request(self, number: int) -> Stage:
        stage = Stage(lambda: self.granted.append(number), lambda: self.slow.append(number))
        self.pool.request(stage)
        return stage

    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        self.pool.check_speed()


def test_stages_are_granted_in_order_of_request() -> None:
    pushes = Pushes()
    stages = [pushes.request(number) for number in range(4)]
    assert pushes.granted == [0, 1]
    pushes.pool.release(stages[1])
    assert pushes.granted == [0, 1, 2]
    pushes.pool.release(stages[0])
    assert pushes.granted == [0, 1, 2, 3]


def test_a_withdrawn_request_is_never_granted() -> None:
    pushes = Pushes()
    stages = [pushes.request(number) for number in range(4)]
    assert pushes.pool.withdraw(stages[2])
    assert not pushes.pool.withdraw(stages[0])
    pushes.pool.release(stages[0])
    assert pushes.granted == [0, 1, 3]


def test_the_stage_that_became_the_sum_is_free_after_the_update() -> None:
    pushes = Pushes()
    first = pushes.request(0)
    pushes.pool.filled(first)
    second = pushes.request(1)
    pushes.request(2)
    pushes.pool.release(second)
    pushes.request(3)
    assert pushes.granted == [0, 1, 2]
    pushes.pool.release(first)
    assert pushes.granted == [0, 1, 2, 3]


def test_one_stage_alone_could_block_for_ever_and_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        StagePool(1, 30.0, lambda: 0.0)


def test_below_the_floor_a_push_loses_its_stage_only_while_others_wait() -> None:
    pushes = Pushes()
    crawling, running = pushes.request(0), pushes.request(1)
    for _ in range(20):
        crawling.received_bytes += 1000
        running.received_bytes += 10 * FLOOR_BYTES_PER_S
        pushes.pass_time(1.0)
    assert pushes.slow == []
    pushes.request(2)
    for _ in range(2 * int(FLOOR_WINDOW_S)):
        crawling.received_bytes += 1000
        running.received_bytes += 10 * FLOOR_BYTES_PER_S
        pushes.pass_time(1.0)
    assert pushes.slow == [0]


def test_a_push_without_a_byte_loses_its_stage_though_nobody_waits() -> None:
    pushes = Pushes(stalled_s=15.0)
    pushes.request(0)
    pushes.pass_time(14.0)
    assert pushes.slow == []
    pushes.pass_time(1.0)
    assert pushes.slow == [0]


def test_time_in_which_the_server_holds_a_push_up_does_not_count() -> None:
    pushes = Pushes(stalled_s=15.0)
    stage = pushes.request(0)
    stage.held_up = True
    for _ in range(60):
        pushes.pass_time(1.0)
    stage.held_up = False
    pushes.pass_time(14.0)
    assert pushes.slow == []


def test_a_filled_stage_is_never_too_slow_and_waiting_is_no_slowness() -> None:
    pushes = Pushes(stalled_s=15.0)
    for number in range(3):
        stage = pushes.request(number)
        if number < 2:
            pushes.pool.filled(stage)
    pushes.pass_time(100.0)
    assert pushes.slow == []


@given(st.lists(st.sampled_from(["request", "release", "withdraw"]), max_size=60), st.integers(2, 4))
def test_never_more_stages_are_out_than_there_are(moves: list[str], stages: int) -> None:
    pushes = Pushes(stages)
    asked: list[Stage] = []
    released: set[int] = set()
    withdrawn: set[int] = set()
    for move in moves:
        out = [number for number in pushes.granted if number not in released]
        if move == "request":
            asked.append(pushes.request(len(asked)))
        elif move == "release" and out:
            released.add(out[0])
            pushes.pool.release(asked[out[0]])
        elif move == "withdraw" and asked and pushes.pool.withdraw(asked[-1]):
            withdrawn.add(len(asked) - 1)
        out = [number for number in pushes.granted if number not in released]
        assert len(out) <= stages
        # Nobody waits while a stage is free.
        assert len(out) == stages or len(pushes.granted) + len(withdrawn) == len(asked)
    assert pushes.granted == sorted(pushes.granted)
