"""Whether a worker loads its samples in processes: as it was told, or where it pays."""

from __future__ import annotations

import os

import pytest
import torch

from paceline.settings import SharedSettings, WorkerSettings
from paceline.worker.agreement import WarmUp, build
from paceline.worker.samples import Samples, loaders_for
from tests.jobs import Tiny

SHARED = SharedSettings(micro_batch=4)


@pytest.mark.parametrize(
    ("asked", "load_s", "compute_s", "expected"),
    [
        (None, 0.1, 0.1, 2),
        (None, 0.004, 0.001, 0),
        (None, 0.006, 0.001, 2),
        (None, 0.1, 2.0, 0),
        (0, 9.0, 0.1, 0),
        (5, 0.0, 9.0, 5),
    ],
)
def test_processes_are_used_where_they_pay_or_as_told(
    asked: int | None, load_s: float, compute_s: float, expected: int
) -> None:
    assert loaders_for(asked, WarmUp(None, load_s, compute_s)) == expected


def told_of(loaders: int) -> list[str]:
    settings = WorkerSettings(server="127.0.0.1:1", job="tests/jobs.py:Tiny", loaders=loaders)
    said: list[str] = []
    samples = Samples(settings, torch.device("cpu"), said.append, lambda: None)
    # No process is started before a task is wanted.
    samples.begin(build(Tiny(), SHARED, torch.device("cpu")), WarmUp())
    samples.close()
    return said


def test_more_of_them_than_cores_are_told_of() -> None:
    cores = os.cpu_count() or 1
    assert told_of(cores) == []
    assert told_of(cores + 1) == [f"{cores + 1} loaders on a machine of {cores} cores: they get in each other's way"]
