"""Contributions that do not fit their lease are refused and their tasks are planned again; training goes on."""

from __future__ import annotations

import math
from typing import Any

import pytest

from paceline.coordination.effects import (
    AddContribution,
    LeaseRecord,
    LeaseVerdict,
    RefusePush,
    SendLease,
    StagePush,
    WorkerChanged,
)
from paceline.coordination.events import ContributionRejected, Rejection, TaskResult
from paceline.coordination.ids import TaskId
from tests.coordination.scene import Scene, Worker, of, one, result


def two_workers() -> tuple[Scene, Worker, Worker]:
    scene = Scene("fixed", tasks=4, min_workers=2, silent_after_s=1e6)
    return scene, scene.join("a"), scene.join("b")


def strange(**changes: Any) -> TaskResult:
    return TaskResult(**{"task": TaskId(1), "seconds": 1.0, "loss_sum": 1.0, "samples": 2, **changes})


@pytest.mark.parametrize(
    ("changes", "rejection", "words"),
    [
        ({"version": 1}, Rejection.WRONG_VERSION, "version is 1: expected 0, the lease's"),
        ({"version": -1}, Rejection.WRONG_VERSION, "version is -1"),
        ({"results": ()}, Rejection.WRONG_TASKS, "tasks are none: expected one or more"),
        ({"results": (result(0), result(0))}, Rejection.WRONG_TASKS, "tasks are 0, 0: expected"),
        ({"results": (result(0), result(2))}, Rejection.WRONG_TASKS, "tasks 2 are not kept in lease"),
        ({"results": (result(0), strange(seconds=math.nan))}, Rejection.NON_FINITE, "are not a number"),
        ({"results": (result(0), strange(seconds=-1.0))}, Rejection.NON_FINITE, "are not a number"),
        ({"results": (result(0), strange(loss_sum=math.inf))}, Rejection.NON_FINITE, "are not a number"),
        ({"results": (result(0), strange(samples=-1))}, Rejection.NON_FINITE, "are not a number"),
    ],
)
def test_manifest_that_does_not_fit_is_refused_and_its_tasks_planned_again(
    changes: dict[str, Any], rejection: Rejection, words: str
) -> None:
    scene, a, b = two_workers()
    first = b.lease
    refused = one(effects := a.offer(**changes), RefusePush)
    assert refused.rejection is rejection
    assert words in refused.message
    assert not of(effects, StagePush)
    assert one(effects, WorkerChanged).state == "aside"
    assert one(effects, SendLease).tasks == (0, 1)
    b.work(first)
    b.work()
    assert scene.applied() == [[0, 1, 2, 3]]
    assert {record.verdict for record in of(scene.log, LeaseRecord)} == {LeaseVerdict.REJECTED, LeaseVerdict.APPLIED}


@pytest.mark.parametrize(
    "rejection",
    [
        Rejection.CHECKSUM,
        Rejection.TRUNCATED,
        Rejection.WRONG_SIZE,
        Rejection.WRONG_DTYPE,
        Rejection.TOO_SLOW,
        Rejection.NON_FINITE,
    ],
)
def test_bytes_that_fail_a_check_are_never_added(rejection: Rejection) -> None:
    scene, a, b = two_workers()
    first = b.lease
    push = one(a.offer(), StagePush).push
    effects = scene.do(ContributionRejected(push, rejection, "bad"))
    assert one(effects, RefusePush).rejection is rejection
    again = of(effects, SendLease)
    assert sorted(task for order in again for task in order.tasks) == [0, 1]
    for order in [first, *again]:
        b.work(order)
    assert scene.applied() == [[0, 1, 2, 3]]
    assert a.lease.lease not in {effect.lease for effect in of(scene.log, AddContribution)}


def test_manifest_is_right_where_reports_were_lost() -> None:
    scene, a, b = two_workers()
    a.deliver()
    b.work()
    assert scene.applied() == [[0, 1, 2, 3]]
    known = {worker.name: worker.tasks_done for worker in scene.machine.machine.snapshot(0.0).workers}
    assert known == {"a": 2, "b": 2}


def test_part_of_a_lease_may_be_pushed() -> None:
    scene, a, b = two_workers()
    effects = a.deliver([1])
    assert one(effects, SendLease).tasks == (0,)
    scene.finish_round(a, b)
    assert scene.applied() == [[0, 1, 2, 3]]


def test_report_with_numbers_that_are_none_is_passed_over() -> None:
    _scene, a, _b = two_workers()
    assert a.report(0, seconds=math.nan) == []
    assert a.report(0, seconds=-1.0) == []


def test_push_of_a_task_that_was_taken_back_meanwhile_is_refused() -> None:
    scene, a, b = two_workers()
    push = one(a.offer([0, 1]), StagePush).push
    a.fail(0)
    refused = one(scene.verify(push), RefusePush)
    assert (refused.rejection, refused.message) == (Rejection.WRONG_TASKS, "its tasks were taken back meanwhile")
    scene.refuse(a.leases[0].lease)
    scene.finish_round(a, b)
    assert scene.applied() == [[0, 1, 2, 3]]
