from __future__ import annotations

from paceline.coordination.events import TaskFailure
from paceline.worker.convert import failure_report
from paceline.worker.leases import FailedTask


def test_a_failure_of_ten_megabytes_is_told_in_less_than_one() -> None:
    failed = FailedTask(3, TaskFailure.EXCEPTION, 0.1, "begin" + "\u00e4" * 10_000_000, "x" * 10_000_000 + "\u00e4 end")
    report = failure_report(7, failed).report
    assert report.ByteSize() < 2**20
    assert report.message.startswith("begin")
    assert report.traceback.endswith("end")
