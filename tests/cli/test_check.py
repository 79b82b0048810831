"""`paceline check` measures a job with the code of server and worker, and says in one line what is wrong with it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from paceline.cli.app import run_command_line
from paceline.flat import build_model
from tests.docs.test_readme import run
from tests.jobs import DigitsLike
from tests.system.cluster import ROOT

FLAWED = f"{ROOT}/tests/cli/flawed_jobs.py"
JOBS = f"{ROOT}/tests/jobs.py"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def check(*arguments: str, expected: int = 0) -> dict[str, Any]:
    """Check a job that was built; give the document."""
    assert run_command_line(["check", *arguments, "--json", "out.json"]) == expected
    document: dict[str, Any] = json.loads(Path("out.json").read_text())
    return document


def test_a_sound_job_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    found = check(f"{JOBS}:DigitsLike", "--sums", "exact", "--micro-batch", "50", "--tasks", "6", "--workers", "3")
    flat = build_model(DigitsLike(), 0)
    parameters = sum(parameter.numel() for parameter in flat.module.parameters())
    assert (found["parameters"], found["trained_parameters"]) == (parameters, parameters)
    assert found["pull_bytes"] == flat.layout.version_nbytes
    assert (found["n_samples"], found["epoch_tasks"]) == (600, 12.0)
    # Momentum is one number per parameter.
    assert found["state_bytes"]["optimizer"] == 4 * parameters
    assert found["same_bits"] is True
    assert 0 < found["task_s"] < 10
    assert found["load_s"] < found["task_s"]
    assert found["before_bytes"] <= found["worker_bytes"] <= found["peak_bytes"]
    assert 2.0 < found["loss"] < 3.5
    assert set(found["metrics"]) == {"accuracy"}
    assert (found["notes"], found["problems"]) == ([], [])
    said = capsys.readouterr().out
    assert "600 samples: 12 tasks of 50 samples an epoch" in said
    assert "same bits   yes" in said
    # Six tasks over three workers: two each.
    traffic = found["pull_bytes"] + found["push_bytes"]
    assert found["needed_bytes_per_s"] == pytest.approx(4 * traffic / (2 * found["task_s"]))


@pytest.mark.slow
@pytest.mark.system
def test_traffic_is_what_a_run_counts() -> None:
    found = check(f"{JOBS}:DigitsLike", "--sums", "exact")
    command = (
        f"paceline run {JOBS}:DigitsLike --sums exact --workers 1 --policy uniform --tasks 2 --rounds 3 --json run.json"
    )
    run(command, Path.cwd())
    counted = json.loads(Path("run.json").read_text())["bytes"]
    assert counted == {"pulled": 3 * found["pull_bytes"], "pushed": 3 * found["push_bytes"]}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Empty", r"dataset\(\) is empty: expected at least one sample"),
        ("Stream", r"dataset\(\) gave a Rows, which is an IterableDataset: expected one with len\(\) and indexing"),
        ("NotScalar", r"task 0: .* loss\(\) gave a tensor of shape \(32,\): expected a scalar tensor"),
        ("NotFinite", r"task 0: the loss is nan"),
        ("Detached", r"task 0: .* does not depend on the model's trainable parameters"),
        ("Raises", r"task 0: computing it raised ValueError: labels are words"),
        ("Exits", r"task 0: the job's code called exit\(\)"),
        ("SparseEmbedding", r"0 is an embedding with sparse gradients: expected sparse=False"),
        ("NeedsClosure", r"optimizer LBFGS needs a closure"),
        ("SparseAdam", r"optimizer SparseAdam needs sparse gradients: .* expected e\.g\. Adam"),
        ("OddState", r"state of the optimizer: .*Note"),
        ("WordsForNumbers", r"evaluate\(\) gave 'mse' as a str: expected a number"),
        ("EvaluateExits", r"evaluate\(\) raised SystemExit: 3"),
        ("Overflows", r"the update to version 1 made weight, bias not finite"),
        ("BrokenStep", r"the update .* raised RuntimeError: clipping failed"),
    ],
)
def test_a_problem_is_said_in_one_line(name: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = check(f"{FLAWED}:{name}", expected=2)
    (problem,) = found["problems"]
    assert re.match(told, problem)
    assert capsys.readouterr().err.splitlines()[-1] == f"paceline: {problem}"


def test_the_users_own_lines_come_before_what_they_raised(capsys: pytest.CaptureFixture[str]) -> None:
    check(f"{FLAWED}:Raises", expected=2)
    said = capsys.readouterr().err
    assert 'raise ValueError("labels are words")' in said
    assert "gradients.py" not in said


def test_several_problems_are_all_named_and_what_is_sound_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    found = check(f"{FLAWED}:TwoFaults", expected=2)
    assert [problem.split(":")[0] for problem in found["problems"]] == [
        "dataset() is empty",
        "model() gave a str",
    ]
    found = check(f"{FLAWED}:Empty", expected=2)
    assert found["parameters"] == 1000
    assert "model       Linear of 1,000 parameters" in capsys.readouterr().out


def test_validation_data_are_measured_on_as_workers_do() -> None:
    found = check(f"{FLAWED}:Validates", "--micro-batch", "30")
    # All 100 samples, each with a number of its own from 0 to 99.
    assert found["metrics"] == {"mean": 49.5}
    (problem,) = check(f"{FLAWED}:HalfValidates", expected=2)["problems"]
    assert problem == "job HalfValidates has validate() without validation(): expected both"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "Unused",
            [r"idle\.bias, idle\.weight of the model got no gradient", r"used\.bias of the model is not in the opt"],
        ),
        ("OtherSamples", [r"task 0 gave another gradient .*; its samples differ"]),
        ("OtherLoss", [r"task 0 gave another gradient .*; its samples are the same"]),
        ("Unsendable", [r"samples cannot be loaded beside .*: its batches cannot be sent between processes"]),
    ],
)
def test_what_a_run_would_live_with_is_a_note(name: str, told: list[str]) -> None:
    found = check(f"{FLAWED}:{name}")
    assert found["problems"] == []
    assert len(found["notes"]) == len(told)
    for note, pattern in zip(found["notes"], told, strict=True):
        assert re.match(pattern, note)
    assert found["same_bits"] is (not name.startswith("Other"))


@pytest.mark.system
def test_a_loader_process_is_tried_where_a_worker_would_have_one() -> None:
    found = check(f"{JOBS}:DigitsLike", "--loaders", "1")
    assert (found["loaders"], found["notes"]) == (1, [])
    (note,) = check(f"{FLAWED}:OtherSamples", "--loaders", "1")["notes"][1:]
    assert "task 0 has other samples when another process loads it" in note


def test_settings_come_from_the_project_file_too() -> None:
    Path("paceline.toml").write_text('micro-batch = 20\n[run]\nworkers = 5\nbest = "loss"\n')
    found = check(f"{JOBS}:DigitsLike", expected=2)
    assert (found["micro_batch"], found["workers"]) == (20, 5)
    assert found["problems"] == ["--best or --until names metric 'loss', but the job measures accuracy"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("MeasuresNothing", r"best is set, but job MeasuresNothing has no evaluate\(\) or validation\(\)"),
        ("FollowsMetric", r"plateau_metric is 'mse', but workers do not measure it between rounds"),
    ],
)
def test_settings_that_a_job_cannot_meet_are_wrong_settings(name: str, told: str) -> None:
    Path("paceline.toml").write_text('[run]\nbest = "mse"\n')
    (problem,) = check(f"{FLAWED}:{name}", expected=78)["problems"]
    assert re.match(told, problem)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ((f"{JOBS}:DigitsLike", "--link", "fast"), 2, "--link is 'fast': expected what a link carries"),
        ((f"{JOBS}:DigitsLike", "--tasks", "0"), 2, "--tasks is '0': expected a whole number, at least 1"),
        ((f"{JOBS}:DigitsLike", "--json", "no/out.json"), 2, "the folder 'no' does not exist"),
        ((f"{JOBS}:DigitsLike", "--data", "no"), 2, "data is 'no': expected a folder"),
        ((f"{JOBS}:DigitsLike", "--micro-batch", "601"), 2, "dataset() has 600 samples, fewer than a task"),
        ((f"{JOBS}:DigitLike",), 2, "did you mean DigitsLike?"),
        (("nowhere.py:Job",), 2, "job file 'nowhere.py' does not exist"),
        ((), 2, "JOB"),
    ],
)
def test_wrong_arguments_are_said_in_one_line(
    arguments: tuple[str, ...], code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command_line(["check", *arguments]) == code
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")
def test_a_device_that_is_not_there_is_a_wrong_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["check", f"{JOBS}:DigitsLike", "--device", "cuda"]) == 78
    assert "device is 'cuda': this machine has 0 CUDA devices" in capsys.readouterr().err
