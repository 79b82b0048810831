from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from paceline.errors import JobImportError, SettingsError, UsageError
from paceline.server.preparation import parse_device, planned_rounds, prepare, raise_descriptor_limit
from paceline.settings import RunSettings
from paceline.weights import save_model


def settings(**changes: Any) -> RunSettings:
    return RunSettings(**{"job": "tests/jobs.py:Tiny", "tasks": 10, "micro_batch": 10, **changes})


@pytest.mark.parametrize(
    ("limits", "rounds"),
    [
        ({}, 11),
        ({"epochs": 1}, 11),
        ({"epochs": 2}, 21),
        ({"rounds": 5}, 5),
        ({"rounds": 50, "epochs": 2}, 21),
        ({"rounds": 5, "epochs": 2}, 5),
        ({"until": "mse<=0.1"}, None),
        ({"until": "mse<=0.1", "epochs": 1}, 11),
        ({"until": "mse<=0.1", "rounds": 3}, 3),
    ],
)
def test_the_first_limit_ends_the_run_and_one_epoch_where_there_is_none(
    limits: dict[str, Any], rounds: int | None
) -> None:
    # 1,024 samples, 100 a round.
    assert planned_rounds(settings(**limits), 1024) == rounds


def test_everything_is_built_under_the_seed(tmp_path: Path) -> None:
    first, second, other = (prepare(settings(seed=seed)).flat.fingerprint() for seed in (1, 1, 2))
    assert first == second != other
    weights = tmp_path / "w.safetensors"
    save_model(prepare(settings(seed=2)).flat, weights)
    assert prepare(settings(seed=1, init=weights)).flat.fingerprint() == other


def test_the_server_computes_with_as_many_threads_as_workers_do() -> None:
    before = torch.get_num_threads()
    try:
        prepare(settings(threads=2))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"job": "nowhere.py:Job"}, UsageError, "does not exist"),
        ({"job": "tests/jobs.py:Absent"}, UsageError, "no class 'Absent'"),
        ({"micro_batch": 2000}, UsageError, "fewer than a task"),
        ({"init": Path("nowhere.safetensors")}, UsageError, "nowhere.safetensors"),
        ({"push_memory_bytes": 5000}, SettingsError, "expected at least 8064, two contributions"),
        ({"job": "tests/server/no_evaluate.py:Silent", "until": "x>=1"}, SettingsError, "until is set"),
        ({"job": "tests/server/no_evaluate.py:Silent", "eval_every": 2}, SettingsError, "eval-every is set"),
        ({"job": "tests/server/no_evaluate.py:Broken"}, JobImportError, "RuntimeError: no model today"),
    ],
)
def test_mistakes_are_one_line_each(changes: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        prepare(settings(**changes))
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_device_that_is_not_there_is_named() -> None:
    assert parse_device("auto").type == "cpu"
    with pytest.raises(SettingsError, match="'cuda:3': this machine has 0 CUDA devices"):
        parse_device("cuda:3")


def test_the_limit_of_open_files_is_told() -> None:
    assert raise_descriptor_limit().startswith("open files: limit ")
