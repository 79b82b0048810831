"""The next lease is guessed where leases follow a rule, and not where they do not."""

from paceline.worker.foresight import Foresight


def after(*leases: list[int]) -> list[int]:
    foresight = Foresight()
    for tasks in leases:
        foresight.came(tasks)
    return foresight.guess()


def test_a_steady_share_is_foreseen_from_the_third_lease_on() -> None:
    assert after() == after([3, 4]) == after([3, 4], [13, 14]) == []
    assert after([3, 4], [13, 14], [23, 24]) == [33, 34]


def test_one_task_more_or_less_is_foreseen_all_the_same() -> None:
    assert after([3, 4], [13, 14], [22, 23, 24]) == [31, 32, 33]
    assert after([3, 4], [13, 14], [23, 24], [32, 33]) == [41, 42]


def test_a_guess_that_came_true_for_less_than_half_is_not_followed_by_another() -> None:
    assert after([3, 4], [13, 14], [23, 24], [60, 61]) == []
    assert after([3, 4], [13, 14], [23, 24], [60, 61], [97, 98], [134, 135]) == [171, 172]


def test_tasks_that_come_back_or_none_give_no_guess() -> None:
    assert after([13, 14], [3, 4], [13, 14]) == []
    assert after([3, 4], [13, 14], [23, 24], []) == [33, 34]
