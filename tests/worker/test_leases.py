"""The worker's books, without threads or wires: what is done when, and what is kept through repetitions."""

from __future__ import annotations

from paceline.coordination.events import TaskFailure, TaskResult
from paceline.coordination.ids import TaskId
from paceline.worker.leases import Compute, Deliver, End, FailedTask, HeldLease, LeaseBook, Load, Settle, Step


def held(lease: int, *, in_advance: bool = True, version: int = 0) -> HeldLease:
    return HeldLease(id=lease, version=version, keep_in_advance=in_advance, push_unasked=in_advance, task_limit_s=0.0)


def result(task: int) -> TaskResult:
    return TaskResult(task=TaskId(task), seconds=1.0, loss_sum=2.0, samples=3)


def failed(task: int) -> FailedTask:
    return FailedTask(task, TaskFailure.EXCEPTION, 1.0, "it raised")


def compute(book: LeaseBook, step: Step | None = None) -> HeldLease:
    """Do the next step, which must be a task, with success."""
    step = step or book.next_step()
    assert isinstance(step, Compute)
    book.finish(step.lease, result(step.task))
    return step.lease


def settle(book: LeaseBook) -> bool:
    """Do the next step, which must settle a gradient."""
    step = book.next_step()
    assert isinstance(step, Settle)
    if step.keep:
        step.lease.holds_sum = True
    book.settle(step.lease, step.task, step.keep)
    return step.keep


def deliver(book: LeaseBook) -> HeldLease:
    step = book.next_step()
    assert isinstance(step, Deliver)
    step.lease.delivering = True
    return step.lease


def ended(book: LeaseBook) -> HeldLease:
    step = book.next_step()
    assert isinstance(step, End)
    book.remove(step.lease.id)
    return step.lease


def test_tasks_kept_in_advance_are_summed_in_order_and_delivered_unasked() -> None:
    book = LeaseBook()
    book.give(held(1), [4, 2, 3])
    lease = book.held()[0]
    for task in (4, 2, 3):
        step = book.next_step()
        assert step == Compute(lease, task)
        compute(book, step)
        assert settle(book)
    assert deliver(book).summed == {2, 3, 4}
    assert book.next_step() is None
    book.remove(1)
    assert book.next_step() is None
    assert len(book) == 0


def test_leases_are_worked_off_in_the_order_of_arrival() -> None:
    book = LeaseBook()
    book.give(held(2), [1])
    book.give(held(1), [2])
    assert compute(book).id == 2
    settle(book)
    assert deliver(book).id == 2
    assert compute(book).id == 1


def test_no_second_backward_begins_before_the_verdict() -> None:
    book = LeaseBook()
    book.give(held(1, in_advance=False), [0, 1])
    lease = compute(book)
    # The next samples may be loaded meanwhile, once.
    assert book.next_step() == Load(lease, 1)
    assert book.next_step() is None
    book.verdict(1, 0, True)
    assert settle(book)
    assert book.next_step() == Compute(lease, 1)


def test_the_first_verdict_stands() -> None:
    book = LeaseBook()
    book.give(held(1, in_advance=False), [0])
    compute(book)
    book.verdict(1, 0, False)
    book.verdict(1, 0, True)
    assert settle(book) is False


def test_lease_that_waits_for_its_collect_does_not_hold_up_the_next() -> None:
    book = LeaseBook()
    book.give(held(1, in_advance=False), [0])
    compute(book)
    book.verdict(1, 0, True)
    settle(book)
    assert book.next_step() is None
    book.give(held(2, in_advance=False), [1])
    assert compute(book).id == 2
    book.verdict(2, 1, True)
    # No push is on its way: waiting for the first sum could last for ever.
    assert settle(book)


def test_sum_that_is_leaving_is_waited_for() -> None:
    book = LeaseBook()
    book.give(held(1), [0])
    compute(book)
    settle(book)
    deliver(book)
    book.give(held(2), [1, 2])
    second = compute(book)
    assert book.next_step() == Load(second, 2)
    assert book.next_step() is None
    book.remove(1)
    assert settle(book)


def test_collect_settles_what_waits_and_names_what_is_pushed() -> None:
    book = LeaseBook()
    book.give(held(1, in_advance=False), [0, 1, 2])
    compute(book)
    book.verdict(1, 0, True)
    settle(book)
    compute(book)
    # The verdict of task 1 was overtaken by the collect, task 2 is given up.
    book.collect(1, [0, 1])
    assert settle(book)
    assert deliver(book).summed == {0, 1}


def test_collect_of_less_than_was_summed_cannot_be_served() -> None:
    book = LeaseBook()
    book.give(held(1, in_advance=False), [0, 1])
    for task in (0, 1):
        compute(book)
        book.verdict(1, task, True)
        settle(book)
    book.collect(1, [0])
    assert ended(book).id == 1


def test_collect_makes_the_running_task_unwanted_and_bills_it() -> None:
    book = LeaseBook()
    book.give(held(1, in_advance=False), [0, 1])
    compute(book)
    book.verdict(1, 0, True)
    settle(book)
    step = book.next_step()
    assert isinstance(step, Compute)
    assert book.wanted(step.lease)
    book.collect(1, [0])
    assert not book.wanted(step.lease)
    book.give_up(step.lease, 2.5)
    assert deliver(book).wasted_s == 2.5


def test_cancelled_lease_ends_and_its_gradient_is_forgotten() -> None:
    book = LeaseBook()
    book.give(held(1, in_advance=False), [0, 1])
    compute(book)
    assert book.cancel(1)
    assert settle(book) is False
    assert ended(book).id == 1


def test_cancel_reaches_even_a_lease_on_its_way() -> None:
    book = LeaseBook()
    book.give(held(1), [0])
    compute(book)
    settle(book)
    deliver(book)
    book.cancel(1)
    assert ended(book).id == 1


def test_lease_whose_tasks_all_failed_ends() -> None:
    book = LeaseBook()
    book.give(held(1), [0])
    step = book.next_step()
    assert isinstance(step, Compute)
    book.fail(step.lease, failed(0))
    assert ended(book).id == 1


def test_failed_task_that_is_granted_again_is_tried_again() -> None:
    book = LeaseBook()
    book.give(held(1, in_advance=False), [0])
    step = book.next_step()
    assert isinstance(step, Compute)
    book.fail(step.lease, failed(0))
    assert book.next_step() is None
    assert book.grant(1, [0])
    assert compute(book).failures == {}


def test_task_that_fails_while_it_is_loaded_ahead_is_not_begun_again() -> None:
    book = LeaseBook()
    book.give(held(1, in_advance=False), [0, 1, 2])
    lease = compute(book)
    assert book.next_step() == Load(lease, 1)
    book.fail(lease, failed(1))
    assert book.next_step() == Load(lease, 2)


def test_what_is_said_twice_is_done_once() -> None:
    book = LeaseBook()
    book.give(held(1, in_advance=False), [0, 1])
    compute(book)
    assert book.give(held(1, in_advance=False), [0, 1, 5])
    book.grant(1, [1, 5])
    assert list(book.held()[0].waiting) == [1, 5]
    assert book.held()[0].results.keys() == {0}


def test_lease_that_ended_is_remembered_so_that_its_end_can_be_said_again() -> None:
    book = LeaseBook()
    book.give(held(1, in_advance=False), [0])
    step = book.next_step()
    assert isinstance(step, Compute)
    book.cancel(1)
    book.give_up(step.lease, 1.5)
    ended(book)
    assert not book.give(held(1, in_advance=False), [0])
    assert not book.cancel(1)
    assert not book.collect(1, [0])
    assert not book.grant(1, [0])
    assert book.wasted_of_over(1) == 1.5
    assert book.wasted_of_over(2) == 0.0


def test_answered_lease_that_is_given_again_is_not_taken_for_a_new_one() -> None:
    # The push result may come over the data connection while a resumed session says everything again.
    book = LeaseBook()
    book.give(held(1), [0])
    compute(book)
    settle(book)
    book.remove(deliver(book).id)
    assert not book.give(held(1), [0])
    assert len(book) == 0


def test_drain_pushes_the_part_of_a_lease_kept_in_advance() -> None:
    book = LeaseBook()
    book.give(held(1), [0, 1, 2])
    step = book.next_step()
    assert isinstance(step, Compute)
    book.drain()
    assert book.wanted(step.lease)
    compute(book, step)
    settle(book)
    assert deliver(book).summed == {0}


def test_drain_gives_back_what_was_not_begun() -> None:
    book = LeaseBook()
    book.give(held(1), [0])
    book.give(held(2, in_advance=False), [1])
    book.drain()
    assert ended(book).id == 1
    assert ended(book).id == 2
    # What still arrives is given back, too.
    book.give(held(3), [3])
    book.give(held(4, in_advance=False), [4])
    assert {ended(book).id, ended(book).id} == {3, 4}


def test_drain_leaves_it_to_the_server_when_a_lease_with_verdicts_closes() -> None:
    book = LeaseBook()
    book.give(held(1, in_advance=False), [0])
    compute(book)
    book.verdict(1, 0, True)
    settle(book)
    book.drain()
    assert book.next_step() is None
    book.collect(1, [0])
    assert deliver(book).id == 1


def test_clear_forgets_gradients_and_leases() -> None:
    book = LeaseBook()
    book.give(held(1, in_advance=False), [0, 1])
    compute(book)
    book.next_step()
    book.clear()
    assert (book.unsettled, book.loaded, len(book)) == (None, None, 0)
    book.give(held(2), [7])
    assert compute(book).id == 2


def test_task_of_a_lease_that_was_dropped_while_it_ran_leaves_no_trace() -> None:
    book = LeaseBook()
    book.give(held(1), [0])
    step = book.next_step()
    assert isinstance(step, Compute)
    book.clear()
    assert not book.wanted(step.lease)
    book.finish(step.lease, result(0))
    assert book.unsettled is None
    assert book.next_step() is None
