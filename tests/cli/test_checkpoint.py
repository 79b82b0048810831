"""`paceline checkpoint` in this process: what it prints, writes and exits with."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from paceline.cli import checkpoint_commands
from paceline.cli.app import run_command_line
from paceline.cli.checkpoints import age
from paceline.flat import FlatModel, build_model
from paceline.server.best import BEST, Best, save_best
from paceline.server.checkpoint_files import STATE, WEIGHTS
from paceline.server.checkpoints import CHECKPOINTS, CheckpointStore
from tests.jobs import DigitsLike
from tests.server.recorded import Planned, Share, record

Capture = pytest.CaptureFixture[str]


def weights_of(model: FlatModel) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.module.state_dict().items()}


@pytest.fixture
def model() -> FlatModel:
    return build_model(DigitsLike(), 3)


@pytest.fixture
def run(tmp_path: Path, model: FlatModel) -> Path:
    path = record(tmp_path / "run", [Planned((Share("w1", 0, (0,)),))]).path
    store = CheckpointStore(path / CHECKPOINTS, keep=3)
    for version in (20, 40, 60):
        store.save(version, weights_of(model), {"step": version}, None)
    best = Best(version=40, metric="accuracy", value=0.96875, fingerprint="0123456789ab")
    save_best(path, best, {"w": torch.ones(3)})
    return path


def command(*args: object) -> int:
    return run_command_line(["checkpoint", *map(str, args)])


def command_json(capsys: Capture, *args: object) -> tuple[int, Any]:
    code = command(*args, "--json")
    return code, json.loads(capsys.readouterr().out)


def damage(run: Path, version: int, name: str = WEIGHTS) -> None:
    path = run / CHECKPOINTS / f"{version:08d}" / name
    path.write_bytes(path.read_bytes()[:-1] + b"\x55")


@pytest.mark.parametrize(
    ("function", "flags"),
    [
        (checkpoint_commands.list_them, ["run", "as_json"]),
        (checkpoint_commands.verify, ["run", "as_json"]),
        (checkpoint_commands.export, ["run", "out", "of_round", "best", "as_json"]),
    ],
)
def test_its_flags_are_these(function: Any, flags: list[str]) -> None:
    assert list(inspect.signature(function).parameters) == flags


@pytest.mark.parametrize("name", ["ls", "verify", "export"])
def test_the_help_text_gives_examples_and_needs_no_torch(name: str, capsys: Capture) -> None:
    script = f"""
import sys
from paceline.cli.app import run_command_line
run_command_line(["checkpoint", "{name}", "--help"])
print(sorted({{"torch", "grpc"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert f"paceline checkpoint {name} runs/a" in done.stdout.split("Examples:")[1]
    assert done.stdout.splitlines()[-1] == "[]"


# ---- ls


def test_ls_shows_round_age_and_size_newest_first_and_marks_the_best(run: Path, capsys: Capture) -> None:
    (run / CHECKPOINTS / "notes.txt").write_text("mine")
    assert command("ls", run) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if re.match(r" +\d", line)]
    assert [(row[0], row[2], row[4], row[5:]) for row in rows] == [
        ("60", "s", "kB", []),
        ("40", "s", "kB", ["best"]),
        ("20", "s", "kB", []),
    ]
    assert lines[-2:] == [
        "paceline: best: round 40, accuracy 0.96875 (best.safetensors)",
        "paceline: no checkpoint, left alone: notes.txt",
    ]


def test_ls_names_the_damage_that_it_sees(run: Path, capsys: Capture) -> None:
    (run / CHECKPOINTS / "00000040" / STATE).unlink()
    (run / BEST).write_bytes(b"")
    assert command("ls", run) == 0
    out = capsys.readouterr().out
    assert re.search(r" 40 .* damaged: .*00000040/state.safetensors' cannot be read: No such file", out)
    assert "paceline: damaged: " in out
    assert "best.safetensors' has 0 bytes" in out


def test_ls_prints_json(run: Path, capsys: Capture) -> None:
    code, document = command_json(capsys, "ls", run)
    assert code == 0
    first = document["checkpoints"][0]
    path = run / CHECKPOINTS / "00000060"
    assert datetime.now(tz=UTC) - datetime.fromisoformat(first.pop("saved_at")) < timedelta(minutes=5)
    assert first == {
        "round": 60,
        "path": str(path),
        "bytes": sum(file.stat().st_size for file in path.iterdir()),
        "fault": None,
    }
    assert [entry["round"] for entry in document["checkpoints"]] == [60, 40, 20]
    assert document["best"] == {
        "round": 40,
        "metric": "accuracy",
        "value": 0.96875,
        "fingerprint": "0123456789ab",
        "fault": None,
    }
    assert (document["run"], document["foreign"]) == (str(run), [])


def test_ls_says_that_there_are_none(tmp_path: Path, capsys: Capture) -> None:
    path = record(tmp_path / "run", []).path
    assert command("ls", path) == 0
    assert capsys.readouterr().out == f"paceline: run {str(path)!r} has no checkpoints\n"
    assert command_json(capsys, "ls", path)[1] == {"run": str(path), "checkpoints": [], "best": None, "foreign": []}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3.0, "0 s"), (59.4, "59 s"), (60.0, "1.0 min"), (5400.0, "1.5 h"), (86_400.0 * 2.5, "2.5 d")],
)
def test_an_age_has_one_unit(seconds: float, text: str) -> None:
    assert age(seconds) == text


# ---- verify


def test_verify_exits_with_0_where_all_are_whole(run: Path, capsys: Capture) -> None:
    assert command("verify", run) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "paceline: round 60: whole",
        "paceline: round 40: whole",
        "paceline: round 20: whole",
        "paceline: best: whole",
    ]


def test_verify_exits_with_1_and_names_what_is_damaged(run: Path, capsys: Capture) -> None:
    damage(run, 40)
    assert command("verify", run) == 1
    assert re.search(
        r"round 40: damaged: .*00000040/model.safetensors' has \d+ bytes with checksum \d+: expected \d+ with \d+",
        capsys.readouterr().out,
    )
    code, document = command_json(capsys, "verify", run)
    assert (code, document["damaged"]) == (1, True)
    assert [bool(entry["fault"]) for entry in document["checkpoints"]] == [False, True, False]


def test_verify_looks_at_the_best_too(run: Path, capsys: Capture) -> None:
    (run / BEST).write_bytes((run / BEST).read_bytes()[:-1] + b"\x55")
    assert command("verify", run) == 1
    assert "paceline: best: damaged: " in capsys.readouterr().out
    code, document = command_json(capsys, "verify", run)
    assert (code, document["damaged"], list(document["best"])) == (1, True, ["fault"])


# ---- export


@pytest.mark.parametrize(("args", "chosen"), [([], 60), (["--round", "20"], 20)])
def test_export_writes_plain_safetensors_and_prints_the_fingerprint_of_the_model(
    run: Path, tmp_path: Path, model: FlatModel, capsys: Capture, args: list[str], chosen: int
) -> None:
    out = tmp_path / "out.safetensors"
    assert command("export", run, *args, "--out", out) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"paceline: round {chosen}: ")
    assert told.endswith(f"written to {str(out)!r}; fingerprint {model.fingerprint()}\n")
    found = load_file(out)
    assert set(found) == set(model.module.state_dict())
    assert all(torch.equal(found[name], tensor) for name, tensor in model.module.state_dict().items())
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert out.stat().st_mode & 0o444 == 0o444


def test_export_gives_the_best_with_its_fingerprint(run: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "best.safetensors"
    code, document = command_json(capsys, "export", run, "--best", "--out", out)
    assert code == 0
    assert document == {"round": 40, "file": str(out), "bytes": out.stat().st_size, "fingerprint": "0123456789ab"}
    assert load_file(out)["w"].tolist() == [1.0, 1.0, 1.0]


DERIVED = """
import torch
from tests.jobs import DigitsLike

class Derived(DigitsLike):
    def model(self):
        model = super().model()
        model.register_buffer("made", torch.ones(3), persistent=False)
        return model
"""


def test_export_gives_no_fingerprint_where_the_model_makes_buffers_itself(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "derived.py").write_text(DERIVED)
    run = record(tmp_path / "run", [], job=f"{tmp_path / 'derived.py'}:Derived").path
    model = build_model(DigitsLike(), 1)
    CheckpointStore(run / CHECKPOINTS, keep=1).save(3, weights_of(model), {}, None)
    code, document = command_json(capsys, "export", run, "--out", tmp_path / "out.safetensors")
    assert (code, document["fingerprint"]) == (0, None)
    assert command("export", run, "--out", tmp_path / "again.safetensors") == 0
    assert capsys.readouterr().out.endswith("no fingerprint: the model makes some buffers itself\n")


@pytest.mark.parametrize("args", [[], ["--best"]])
def test_export_of_a_damaged_one_leaves_no_file(run: Path, tmp_path: Path, capsys: Capture, args: list[str]) -> None:
    damage(run, 60)
    (run / BEST).write_bytes((run / BEST).read_bytes()[:-1] + b"\x55")
    before = sorted(tmp_path.iterdir())
    assert command("export", run, *args, "--out", tmp_path / "out.safetensors") == 74
    assert re.search(r"safetensors' has \d+ bytes with checksum \d+: expected", capsys.readouterr().err)
    assert sorted(tmp_path.iterdir()) == before


# ---- mistakes


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["ls"], "Missing argument"),
        (["ls", "nowhere"], "run 'nowhere' does not exist: expected the directory of a run"),
        (["ls", "HERE"], "has no settings.json: expected the directory of a run"),
        (["verify", "nowhere"], "run 'nowhere' does not exist"),
        (["verify", "EMPTY"], "has no checkpoints"),
        (["export", "RUN"], "Missing option '--out'"),
        (["export", "nowhere", "--out", "NEW"], "run 'nowhere' does not exist"),
        (["export", "EMPTY", "--out", "NEW"], "has no checkpoints"),
        (["export", "EMPTY", "--best", "--out", "NEW"], "has no best.safetensors: expected one that was told a metric"),
        (["export", "RUN", "--round", "7", "--out", "NEW"], "has no checkpoint of round 7: expected one of 20, 40, 60"),
        (["export", "RUN", "--round", "x", "--out", "NEW"], "'--round'"),
        (["export", "RUN", "--round", "20", "--best", "--out", "NEW"], "--best and --round 20 contradict each other"),
        (["export", "RUN", "--out", "RUN"], "which exists already: expected a new file"),
        (["export", "RUN", "--best", "--out", "RUN"], "which exists already: expected a new file"),
        (["export", "RUN", "--out", "nowhere/out"], "the folder 'nowhere' does not exist: make it first"),
        (["export", "RUN", "--out", "/proc/out"], "--out is '/proc/out', which cannot be written: No such file"),
        (["lss", "RUN"], "No such command 'lss'"),
    ],
)
def test_mistakes_are_one_line(run: Path, tmp_path: Path, capsys: Capture, args: list[str], line: str) -> None:
    record(tmp_path / "empty", [])
    places = {"RUN": run, "HERE": tmp_path, "EMPTY": tmp_path / "empty", "NEW": tmp_path / "out.safetensors"}
    assert command(*(places.get(arg, arg) for arg in args)) == 2
    err = capsys.readouterr().err
    assert line in err
    assert err.count("\n") == 1
    assert not places["NEW"].exists()
