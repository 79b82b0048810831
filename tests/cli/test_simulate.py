"""`paceline simulate` says what is wrong before it computes, and writes what it computed, also after Ctrl-C."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from paceline.cli.app import run_command_line
from paceline.cli.simulate import FLAGS
from paceline.cli.simulate_curve import Curve, cnn
from paceline.errors import UsageError
from paceline.simulation.experiments.listener import Nobody
from paceline.simulation.experiments.presets import PRESETS

BAD = [
    ("", ("PRESET is missing", "--list")),
    ("ata-sqr", ("preset is 'ata-sqr'", "ata-linear", "cmab", "did you mean ata-sqrt?")),
    ("ata-sqrt --policy atta", ("policy is 'atta'", "did you mean ata?", "mindflayer")),
    ("ata-sqrt --policy cmab-lcb", ("employs 23 workers", "there are 17")),
    ("ata-sqrt --policy cmab-kl --tasks 5 --k-start 6", ("k-start is 6", "1 to the tasks per round, 5")),
    ("ata-sqrt --policy cmab-kl --tasks 5 --switch-at 9,8", ("switch-at is '9,8'", "every:1000")),
    ("ata-sqrt --policy asgd --staleness 0", ("--staleness is '0'", "at least 1")),
    ("cmab --k-start 21", ("k-start is 21", "20")),
    ("cmab --staleness 2", ("--staleness", "only with the ata presets")),
    ("ata-sqrt --law expo", ("law is 'expo'", "spikes:P:FACTOR", "did you mean exp?")),
    ("ata-sqrt --law gamma:0", ("gamma:0", "SHAPE from 0.01")),
    ("ata-sqrt --means 1,-2", ("mean of worker 2 is -2", "above 0")),
    ("ata-sqrt --means 1,0", ("mean of worker 2 is 0", "above 0")),
    ("ata-sqrt --means 1,x", ("--means has 'x'",)),
    ("ata-sqrt --means 1,2 --workers 3", ("--means has 2 numbers for 3 workers",)),
    ("ata-sqrt --workers 0", ("--workers is '0'", "at least 1")),
    ("ata-sqrt --tasks 0", ("--tasks is '0'", "at least 1")),
    ("ata-sqrt --rounds -3", ("--rounds is '-3'", "at least 1")),
    ("ata-sqrt --repeats 0", ("--repeats is '0'",)),
    ("ata-sqrt --seed -1", ("--seed is '-1'",)),
    ("ata-sqrt --constants 0", ("constant is '0'", "paper, as-run or a number")),
    ("ata-sqrt --prior 1,1", ("--prior is '1,1'", "different whole numbers")),
    ("ata-sqrt --engine fast", ("--engine is 'fast'", "compiled, machine")),
    ("ata-sqrt --machine-rounds 0", ("--machine-rounds is '0'",)),
    ("ata-sqrt --json .", ("--json", "a directory")),
    ("ata-sqrt --json nowhere/out.json", ("--json", "does not exist")),
    ("ata-sqrt --plot file", ("--plot is 'file'", "cannot be written")),
    ("ata-sqrt --plot file/figures", ("--plot is 'file/figures'", "cannot be written")),
    ("ata-cifar --data empty", ("--data is 'empty'", "cifar-100-binary/train.bin")),
    ("cmab --workers 5 --tasks 6", ("6 of 5 workers",)),
    ("cmab --policy ata", ("policy is 'ata'", "cmab-lcb")),
    ("cmab --constants paper", ("--constants is 'paper'", "ata presets")),
    ("cmab --engine machine", ("--engine is 'machine'",)),
]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()


@pytest.mark.parametrize(("line", "words"), BAD, ids=[line for line, _ in BAD])
def test_a_mistake_is_one_line_and_nothing_is_computed(
    line: str, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    began_s = time.monotonic()
    assert run_command_line(["simulate", *shlex.split(line)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1, said.err
    for word in words:
        assert word in said.err
    assert time.monotonic() - began_s < 5


@pytest.mark.parametrize(("missing", "line"), [("numba", "ata-sqrt"), ("matplotlib", "ata-sqrt --plot x")])
def test_the_missing_extra_is_named_with_the_way_to_install_it(
    missing: str, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    assert run_command_line(["simulate", *line.split()]) == 2
    said = capsys.readouterr()
    assert said.err == f"paceline: simulate needs {missing}, which is not installed: pip install 'paceline[sim]'\n"


def test_the_list_says_what_each_preset_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["simulate", "--list"]) == 0
    said = capsys.readouterr().out
    for preset in PRESETS.values():
        assert preset.does in said
    assert "\ncmab " in said


def test_results_are_printed_written_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = "simulate ata-sqrt --rounds 400 --workers 4 --tasks 6 --law exp --policy ata,fixed,asgd --machine-rounds 20"
    assert run_command_line([*line.split(), "--json", "out.json", "--plot", "a/figures"]) == 0
    said = capsys.readouterr()
    document = json.loads((tmp_path / "out.json").read_text())
    assert (document["preset"], document["workers"], document["law"]) == ("ata-sqrt", 4, "exp")
    assert not document["interrupted"]
    rows = {row["policy"]: row for row in document["policies"]}
    assert [(name, row["rounds"]) for name, row in rows.items()] == [("ata", 400), ("fixed", 400), ("asgd", 20)]
    for row in rows.values():
        assert any(line.startswith(f"│ {row['policy']} ") and f"{row['mean_round_s']:.5g}" in line
                   for line in said.out.splitlines())  # fmt: skip
    assert "20 rounds on the coordinator itself (see --machine-rounds): asgd" in said.err
    figures = sorted(path.name for path in (tmp_path / "a/figures").iterdir())
    assert figures == ["average-regret.png", "average-round-time.png", "cumulative-regret.png",
                       "loss-against-time.png", "loss-against-worker-time.png"]  # fmt: skip
    assert all((tmp_path / "a/figures" / name).read_bytes().startswith(b"\x89PNG") for name in figures)


def test_cmab_is_printed_written_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = "simulate cmab --workers 6 --tasks 3 --rounds 90 --repeats 2 --policy cmab-kl,cmab-oracle"
    assert run_command_line([*line.split(), "--json", "out.json", "--plot", "figures"]) == 0
    document = json.loads((tmp_path / "out.json").read_text())
    assert [row["policy"] for row in document["policies"]] == ["cmab-kl", "cmab-oracle"]
    assert document["policies"][0]["employments"] == 30 * (1 + 2 + 3)
    assert "cmab-oracle" in capsys.readouterr().out
    assert len(list((tmp_path / "figures").iterdir())) == 3


def test_ctrl_c_keeps_what_was_computed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "paceline.cli", "simulate", "ata-sqrt", "--workers", "3", "--tasks", "4"]
    terminal, its_end = pty.openpty()
    process = subprocess.Popen(
        [*command, "--rounds", "1000000000", "--policy", "fixed,greedy", "--json", "out.json"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=its_end, env=os.environ | {"TERM": "xterm", "COLUMNS": "120"},
        text=True,
    )  # fmt: skip
    os.close(its_end)
    # Progress is shown on terminals only.
    seen = ""
    while not re.search(r"greedy.* [1-9]\d*/2000000000", seen):
        seen += os.read(terminal, 4096).decode(errors="replace")
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    os.close(terminal)
    assert process.returncode == 130
    assert "interrupted: the table has what was computed until then" in out
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["interrupted"] is True
    assert [row["policy"] for row in document["policies"]] == ["greedy"]
    assert 0 < document["policies"][0]["rounds"] < 1_000_000_000


def test_the_cnn_has_the_papers_size() -> None:
    assert sum(parameter.numel() for parameter in cnn().parameters()) == 158_684


def write_cifar(folder: Path, images: int) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 100, images).astype(np.uint8)
    pixels = rng.integers(0, 60, (images, 3072)).astype(np.uint8) + labels[:, None]
    (folder / "cifar-100-binary").mkdir(parents=True)
    coarse = np.zeros((images, 1), np.uint8)
    np.hstack([coarse, labels[:, None], pixels]).tofile(folder / "cifar-100-binary" / "train.bin")


def write_mnist(folder: Path, images: int) -> None:
    folder.mkdir(parents=True)
    pixels = np.zeros((images, 28, 28), np.uint8)
    header = bytes([0, 0, 8, 3]) + struct.pack(">3I", *pixels.shape)
    (folder / "train-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
    labels = bytes([0, 0, 8, 1]) + struct.pack(">I", images) + bytes(images)
    (folder / "train-labels-idx1-ubyte").write_bytes(labels)


def test_the_curve_is_trained_on_what_the_folder_has(tmp_path: Path) -> None:
    write_cifar(tmp_path / "both", 40)
    write_cifar(tmp_path / "cifar", 40)
    write_mnist(tmp_path / "mnist", 40)
    found = {name: Curve(tmp_path / name).train(2, 3, 0, Nobody()) for name in ("cifar", "mnist")}
    assert (found["cifar"]["data"], found["mnist"]["data"]) == ("CIFAR-100", "MNIST")
    for curve in found.values():
        assert curve["rounds"] == [1, 2, 3]
        # A hundred classes, nothing learned yet: about ln 100.
        assert curve["losses"][0] == pytest.approx(np.log(100), abs=0.3)
    assert found["cifar"] == Curve(tmp_path / "both").train(2, 3, 0, Nobody())


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "cifar-100-binary/train.bin"])
def test_data_cut_off_are_refused(tmp_path: Path, name: str) -> None:
    write_mnist(tmp_path / "d", 4)
    if name.startswith("cifar"):
        write_cifar(tmp_path / "d", 4)
    path = tmp_path / "d" / name
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UsageError, match=path.name):
        Curve(tmp_path / "d")


@pytest.mark.slow
def test_the_cnn_learns_and_its_curve_goes_with_every_clock(tmp_path: Path) -> None:
    line = "simulate ata-cifar --rounds 60 --curve-rounds 60 --policy fixed,uniform --tasks 60"
    assert run_command_line([*line.split(), "--json", "out.json", "--plot", "figures"]) == 0
    loss = json.loads((tmp_path / "out.json").read_text())["loss"]
    assert loss["data"] == "digits"
    assert len(loss["losses"]) == 60
    assert np.mean(loss["losses"][-5:]) < np.mean(loss["losses"][:5]) - 0.5
    assert (tmp_path / "figures" / "loss-against-time.png").is_file()


def test_help_list_and_mistakes_import_nothing_heavy() -> None:
    script = """
import sys
from paceline.cli.app import run_command_line
for line in ("simulate --help", "simulate --list", "simulate", "simulate ata-sqr", "simulate ata-sqrt --tasks 0"):
    run_command_line(line.split())
print(sorted({"torch", "grpc", "numba", "matplotlib"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_help_text_names_every_flag_and_gives_examples() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "paceline.cli", "simulate", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"COLUMNS": "200"},
    )
    for flag in ("list", *FLAGS):
        assert f"--{flag.removesuffix('_file').replace('_', '-')} " in done.stdout
    assert "paceline simulate ata-sqrt" in done.stdout.split("Examples:")[1]
