from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from paceline.coordination.effects import LeaseVerdict, Outcome
from paceline.server.summary import Ending, summary_document
from paceline.server.totals import Totals
from paceline.server.traffic import Traffic
from paceline.settings import RunSettings
from tests.server.records import lease_record, round_record, snapshot, worker_snapshot

SETTINGS = RunSettings(job="examples/digits.py:Digits", tasks=8, seed=5, sums="exact")
ENDING = Ending(
    outcome=Outcome.DONE,
    reason="10 rounds are done",
    metrics={"accuracy": 0.97, "broken": math.nan},
    checkpoint=8,
    model=Path("runs/a/model.safetensors"),
    fingerprint="abc",
)


def document(rounds: int) -> dict[str, object]:
    totals = Totals()
    for number in range(1, rounds + 1):
        totals.observe(round_record(number, loss=math.inf if number == 2 else 1.0 / number))
    workers = (worker_snapshot("w1"), worker_snapshot("w2", mean_task_s=None))
    return summary_document(SETTINGS, totals, Traffic(10, 20), snapshot(*workers), ENDING)


def test_the_document_has_every_field_with_its_value() -> None:
    found = document(rounds=10)
    data = {"data_share": pytest.approx(0.25)}
    assert found == {
        "policy": "ata-empirical",
        "rounds": 10,
        "skipped_updates": 0,
        "seed": 5,
        "sums": "exact",
        "wall_s": found["wall_s"],
        "round_s": found["round_s"],
        "worker_s": found["worker_s"],
        "cost": None,
        "wasted_worker_s": found["wasted_worker_s"],
        "tasks": {"planned": 80, "used": 60, "wasted": 20, "replanned": 20},
        "validation": {"tasks": 0, "worker_s": 0.0, "seconds": 0.0},
        "staleness": {"mean": 0.0, "max": 0},
        "bytes": {"pulled": 10, "pushed": 20},
        "workers": [
            {"name": "w1", "pace": 2.0, "tasks": 12, "busy_s": 1.2, "mean_task_s": 0.1, "radius_s": 0.02} | data,
            {"name": "w2", "pace": None, "tasks": 12, "busy_s": 1.2, "mean_task_s": None, "radius_s": None} | data,
        ],
        "metrics": {"accuracy": 0.97, "broken": None},
        "means": {"accuracy": [1.0 - 1.0 / number for number in range(1, 11)]},
        "loss": [1.0, None, *(1.0 / number for number in range(3, 11))],
        "checkpoint": 8,
        "model": "runs/a/model.safetensors",
        "fingerprint": "abc",
        "outcome": "done",
        "reason": "10 rounds are done",
        "job": "examples/digits.py:Digits",
        "tasks_per_round": 8,
        "micro_batch": 32,
    }
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_times_are_those_of_the_rounds() -> None:
    found = document(rounds=11)
    # Round k takes 0.5 + k / 1000 s and opens at second k.
    assert found["wall_s"] == 11 + 0.511 - 1
    assert found["round_s"] == {"median": 0.506, "p90": 0.51}
    assert math.isclose(float(str(found["worker_s"])), 11 * 2 * 0.4)
    assert math.isclose(float(str(found["wasted_worker_s"])), 11 * 2 * 0.1)


def test_staleness_is_by_used_task() -> None:
    totals = Totals()
    for lease in (lease_record(1, 0, "w1"), replace(lease_record(30, 1, "w2"), version=9)):
        totals.observe(lease)
    totals.observe(replace(lease_record(40, 1, "w2"), version=9, kept=(), verdict=LeaseVerdict.CANCELLED))
    assert (totals.staleness.mean, totals.staleness.most) == (10.0, 20)


def test_a_run_without_a_round_has_a_document_too() -> None:
    found = document(rounds=0)
    assert (found["rounds"], found["wall_s"], found["loss"]) == (0, 0.0, [])
    assert found["round_s"] == {"median": None, "p90": None}


def test_every_field_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "run-json.md").read_text()
    documented = set(re.findall(r"^\| `(\w+)` ", text, re.MULTILINE))
    assert documented == set(document(rounds=1))
