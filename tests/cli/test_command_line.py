"""What is wrong with a command line is said in one line, with the right exit code, and nothing is started."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from paceline.cli import app, main
from paceline.cli.app import run_command_line
from paceline.cli.options import options_of
from paceline.errors import JobImportError, PacelineError, RefusedError, UnavailableError
from paceline.version import __version__


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


BAD = [
    ("run job.py:Job --tasks 0", 2, ("--tasks is '0'", "whole number, at least 1")),
    ("run job.py:Job --tasks 2199023255552", 2, ("--tasks is '2199023255552'", "at most 1e+06")),
    ("run job.py:Job --tasks many", 2, ("--tasks is 'many'", "whole number")),
    ("run job.py:Job --rounds -1", 2, ("--rounds is '-1'", "at least 1")),
    ("run job.py:Job --seed -1", 2, ("--seed is '-1'", "at least 0")),
    ("run job.py:Job --policy unifrom", 2, ("--policy is 'unifrom'", "did you mean uniform?")),
    ("run job.py:Job --sums precise", 2, ("--sums is 'precise'", "fast, exact")),
    ("run job.py:Job --until better", 2, ("--until is 'better'", "METRIC>=NUMBER")),
    ("run job.py:Job --until accuracy>=1.2.3", 2, ("--until is 'accuracy>=1.2.3'", "METRIC>=NUMBER")),
    ("run job.py:Job --constants 0", 2, ("--constants is '0'", "paper, as-run or a number above 0")),
    ("run job.py:Job --alpha 0", 2, ("--alpha is '0'", "above 0")),
    ("run job.py:Job --device gpu", 2, ("--device is 'gpu'", "cuda:<number>")),
    ("run job.py:Job --metrics-port 70000", 2, ("--metrics-port is '70000'", "at most 65535")),
    ("run job.py:Job --lost-after nan", 2, ("--lost-after is 'nan'",)),
    ("run job.py:Job --workers 2 --pace 1,2,3", 2, ("--pace has 3 values for 2 workers",)),
    ("ray job.py:Job --workers 2 --policy malenia --partition 3", 78, ("partition is 3 for 2 workers",)),
    ("ray job.py:Job --workers 2 --policy fixed --means x=1", 2, ("--means names 'x'", "w1 to w2")),
    ("ray job.py:Job --cpus-per-worker -1", 2, ("--cpus-per-worker is '-1'", "at least 0")),
    ("run job.py:Job --pace 0.5", 2, ("pace 0.5", "at least 1")),
    ("run job.py:Job --pace fast", 2, ("'fast'", "numbers of at least 1")),
    ("run job.py:Job --workers 3 --delay const:1,const:2", 2, ("--delay has 2 values for 3 workers",)),
    ("run job.py:Job --delay gauss:1", 2, ("'gauss'", "const:seconds")),
    ("run job.py:Job --delay exp:-1", 2, ("exp:-1", "not negative")),
    ("run job.py:Job --delay exp:x", 2, ("'x'", "exp:mean")),
    ("worker there:7070 job.py:Job --pace 0", 2, ("--pace is '0'", "at least 1")),
    ("worker there:7070 job.py:Job --delay gauss:1", 2, ("'gauss'",)),
    ("worker there:7070 job.py:Job --name 'a b'", 2, ("--name is 'a b'", "1 to 64")),
    ("worker there job.py:Job", 2, ("HOST:PORT is 'there'", "1 to 65535")),
    ("worker there:0 job.py:Job", 2, ("HOST:PORT is 'there:0'",)),
    ("worker there:7070", 2, ("JOB is missing", "paceline worker HOST:PORT JOB")),
    ("server job.py:Job --bind 7070", 2, ("--bind is '7070'", "HOST:PORT")),
    ("server job.py:Job --bind 127.0.0.1:99999", 2, ("--bind is '127.0.0.1:99999'", "65535")),
    ("run job.py:Job --policy fixed", 78, ("policy fixed needs --means",)),
    ("run job.py:Job --policy fixed --means 0.1,-1", 78, ("mean of worker 'w2' is -1",)),
    ("run job.py:Job --policy fixed --means 0.1,x", 2, ("'x'", "seconds per task")),
    ("run job.py:Job --policy fixed --means w1=1,2", 2, ("every mean with a name, or none",)),
    ("run job.py:Job --policy fixed --means w7=1", 2, ("'w7'", "w1 to w2")),
    ("run job.py:Job --policy k-synk", 2, ("--policy is 'k-synk'", "did you mean k-sync?", "mindflayer")),
    ("run job.py:Job --policy cmab-oracle --tasks 2", 78, ("policy cmab-oracle needs --means",)),
    ("run job.py:Job --policy malenia", 78, ("malenia", "expected --partition N")),
    ("run job.py:Job --policy malenia --partition 3", 78, ("partition is 3 for 2 workers",)),
    ("run job.py:Job --partition 2", 78, ("partition is 2, but policy ata-empirical",)),
    ("run job.py:Job --policy k-sync --tasks 3", 78, ("tasks is 3 for 2 workers", "expected at most 2")),
    ("run job.py:Job --policy adaptive-k-sync --tasks 2 --k-start 3", 78, ("k-start is 3", "1 to 2")),
    ("run job.py:Job --policy adaptive-k-sync --k-test luck", 2, ("--k-test is 'luck'", "pflug-raw")),
    ("run job.py:Job --policy cmab-kl --switch-at 3,2", 2, ("--switch-at", "'3,2'", "every:1000")),
    ("run job.py:Job --policy asgd --staleness 0", 2, ("--staleness is '0'", "at least 1")),
    ("run job.py:Job --policy cmab-lcb --mean-max 0", 2, ("--mean-max is '0'", "above 0")),
    ("run job.py:Job --micro-batch 4 --micro-steps 5", 78, ("micro-steps is 5", "1 to 4")),
    ("run job.py:Job --json .", 2, ("--json", "a directory")),
    ("run job.py:Job --json nowhere/out.json", 2, ("--json", "'nowhere' does not exist")),
    ("server job.py:Job --json nowhere/out.json", 2, ("--json", "'nowhere' does not exist")),
    ("run", 2, ("JOB is missing", "paceline run JOB")),
    ("run job.py:Job --taks 3", 2, ("--taks", "--tasks")),
    ("run job.py:Job --tasks", 2, ("--tasks", "argument")),
    ("run job.py:Job again", 2, ("again",)),
    ("rum job.py:Job", 2, ("'rum'",)),
    ("status", 2, ("HOST:PORT",)),
    ("status nowhere", 2, ("server is 'nowhere'", "HOST:PORT")),
    ("status 127.0.0.1:99999", 2, ("server is '127.0.0.1:99999'", "1 to 65535")),
]


@pytest.mark.parametrize(("line", "code", "words"), BAD, ids=[line for line, _, _ in BAD])
def test_a_mistake_is_one_line(
    line: str, code: int, words: tuple[str, ...], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run_command_line(shlex.split(line)) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1, said.err
    assert said.err.startswith("paceline: ")
    for word in words:
        assert word in said.err
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_variable_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACELINE_TASKS", "none")
    assert run_command_line(["run", "job.py:Job"]) == 78
    assert capsys.readouterr().err.startswith("paceline: PACELINE_TASKS is 'none': expected a whole number")


def test_print_config_shows_value_and_origin_of_every_setting_and_starts_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PACELINE_SEED", "7")
    (tmp_path / "paceline.toml").write_text("rounds = 9\n[run]\nthreads = 2\n")
    words = "run job.py:Job --pace 1,2.5 --print-config"
    assert run_command_line(words.split()) == 0
    rows = {line.split()[0]: line.split(maxsplit=2)[1:] for line in capsys.readouterr().out.splitlines()}
    assert rows["job"] == ["job.py:Job", "JOB"]
    assert rows["pace"] == ["1,2.5", "--pace"]
    assert rows["seed"] == ["7", "PACELINE_SEED"]
    assert rows["rounds"] == ["9", "paceline.toml"]
    assert rows["threads"] == ["2", "paceline.toml [run]"]
    assert rows["tasks"] == ["16", "default"]
    assert rows["run-dir"] == ["-", "default"]
    assert set(rows) == {"setting"} | {option.name for option in options_of("run")}
    assert [entry.name for entry in tmp_path.iterdir()] == ["paceline.toml"]


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["--version"]) == 0
    assert capsys.readouterr().out == f"paceline {__version__}\n"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UnavailableError("nobody there"), 69, "paceline: nobody there\n"),
        (RefusedError("not you"), 77, "paceline: not you\n"),
        (KeyboardInterrupt(), 130, ""),
        (
            JobImportError("job.py raised", "Traceback: his lines\n"),
            2,
            "Traceback: his lines\npaceline: job.py raised\n",
        ),
    ],
)
def test_what_a_command_raises_becomes_a_line_and_a_code(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(app, "build", fail)
    assert run_command_line(["run", "job.py:Job"]) == code
    assert capsys.readouterr().err == said


def test_interrupt_while_the_command_is_loaded_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted:
        def __getattr__(self, name: str) -> object:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "paceline.cli.app", Interrupted())
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130


@pytest.mark.parametrize("error", [ZeroDivisionError("division by zero"), PacelineError("cannot be")])
def test_a_bug_of_ours_is_confessed_with_its_traceback(
    error: Exception, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(app, "build", fail)
    assert run_command_line(["run", "job.py:Job"]) == 70
    said = capsys.readouterr().err
    assert said.startswith("Traceback")
    assert "this is a bug in paceline" in said.splitlines()[-1]


@pytest.mark.parametrize(("words", "completed"), [("paceline pa", "pause"), ("paceline server --web-p", "--web-port")])
def test_a_shell_completes_commands_and_flags(words: str, completed: str) -> None:
    asked = {"_PACELINE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    command = [sys.executable, "-c", "import sys; sys.argv[0] = 'paceline'; from paceline.cli import main; main()"]
    done = subprocess.run(command, env=os.environ | asked, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.split() == [completed], done.stderr
