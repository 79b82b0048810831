"""`paceline plan`: the advice in words, the numbers in JSON and a figure, a run directory, and bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("numba")

from paceline.cli.app import run_command_line
from paceline.cli.plan_asked import gather_asked
from tests.system.cluster import paceline

GIVEN = ("plan", "--means", "0.1,0.2,0.8", "--params", "1e5", "--link", "1Gbit", "--rounds", "200")


def said(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert run_command_line(args) == 0
    return capsys.readouterr().out


def test_it_says_what_to_do_and_where_that_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, *GIVEN)
    assert text.startswith("Use paceline with ata-empirical: ")
    assert "Leave w3 out" in text
    for row in ("uniform", "greedy", "DDP", "w1 alone", "ata-empirical without w2"):
        assert row in text
    assert "links of 1 Gbit/s, the server's of 1 Gbit/s; 200 rounds" in text


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (("--params", "25e6"), "Use w1 alone: 1.6 s for an update of 16 tasks."),
        (("--means", "0.1,0.1,0.1"), "Use DDP: "),
    ],
)
def test_it_says_so_where_paceline_is_not_worth_it(
    capsys: pytest.CaptureFixture[str], changes: tuple[str, ...], told: str
) -> None:
    text = said(capsys, *GIVEN, *changes)
    assert text.startswith(told)
    assert "% of them for transfer" in text


def test_numbers_and_figure_are_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    text = said(capsys, *GIVEN, "--price", "3,1,0.2", "--json", str(tmp_path / "out.json"), "--plot", str(tmp_path))
    found = json.loads((tmp_path / "out.json").read_text())
    assert (found["use"], found["leave_out"]) == ("ata-empirical", ["w3"])
    assert found["words"] == text.splitlines()[: len(found["words"])]
    assert [way["name"] for way in found["ways"]] == ["ata-empirical", "uniform", "greedy", "DDP", "w1 alone"]
    assert found["asked"]["prices"] == [3.0, 1.0, 0.2]
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")


def test_same_seed_same_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, *GIVEN, "--seed", "3") == said(capsys, *GIVEN, "--seed", "3")


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("plan",), "--means is missing: expected seconds per task of each worker, or a run directory"),
        (("plan", "--means", "1,2"), "--params is missing"),
        (("plan", "--means", "1,2", "--params", "1e6"), "--link is missing"),
        ((*GIVEN, "--means", "0.1,x"), "--means has 'x' for a number"),
        ((*GIVEN, "--means", "0.1,0"), "mean of worker 'w2' is 0.0: expected seconds per task above 0"),
        ((*GIVEN, "--params", "-1"), "--params is '-1': expected a number of parameters, such as 25e6"),
        ((*GIVEN, "--link", "fast"), "--link is 'fast': expected what a link carries"),
        ((*GIVEN, "--link", "1Gbit,2Gbit"), "--link has 2 values for 3 workers: expected one, or one each"),
        ((*GIVEN, "--server-link", "0"), "--server-link is '0'"),
        ((*GIVEN, "--price", "1,2"), "--price has 2 values for 3 workers"),
        ((*GIVEN, "--price", "cheap"), "--price has 'cheap': expected prices of an hour"),
        ((*GIVEN, "--tasks", "0"), "--tasks is '0': expected a whole number of at least 1"),
        ((*GIVEN, "--law", "odd"), "law is 'odd': expected one of"),
        ((*GIVEN, "--policy", "odd"), "odd"),
        ((*GIVEN, "--policy", "greedy,greedy"), "--policy names greedy twice"),
        ((*GIVEN, "--policy", "cmab-kl"), "policy cmab-kl employs 16 workers a round, but there are 3"),
        ((*GIVEN, "--json", "nowhere/out.json"), "--json is 'nowhere/out.json'"),
        (("plan", "nowhere", "--link", "1Gbit"), "run 'nowhere' has no settings.json"),
    ],
)
def test_bad_input_is_named_in_one_line(capsys: pytest.CaptureFixture[str], args: tuple[str, ...], told: str) -> None:
    assert run_command_line(args) == 2
    shown = capsys.readouterr()
    assert told in shown.err
    assert shown.err.count("\n") == 1
    assert not shown.out


def test_a_run_says_how_fast_its_workers_are(tmp_path: Path) -> None:
    run = tmp_path / "run"
    flags = ("--workers", "2", "--pace", "1,4", "--delay", "const:0.01,const:0.04", "--tasks", "8", "--rounds", "12")
    done = paceline("run", "tests/jobs.py:DigitsLike", *flags, "--run-dir", str(run))
    assert done.returncode == 0, done.stderr
    asked = gather_asked(run, {"link": "1Gbit"})
    assert asked.tasks == 8
    assert list(asked.means_s) == ["w1", "w2"]
    assert 0.01 < asked.means_s["w1"] < asked.means_s["w2"]
    assert asked.means_s["w2"] > 0.04
    # 1,378 trained float32 in six tensors at multiples of 64 bytes; pushed beside buffers: more is pulled than that.
    assert asked.pull_bytes >= 4 * 1378
    assert asked.source == f"as in the last 12 rounds of {run}"
    assert gather_asked(run, {"link": "1Gbit", "means": "1,2,3"}).means_s == {"w1": 1.0, "w2": 2.0, "w3": 3.0}
