"""The list of flags is frozen: a flag that appears, goes or changes its name is seen here first."""

import subprocess
import sys
from typing import Any

import pytest
import typer

from paceline.access import VARIABLE
from paceline.cli.app import app
from paceline.cli.commands import RunCommand, ServerCommand, WorkerCommand
from paceline.cli.options import OPTIONS, options_of
from paceline.log_format import FORMAT_VARIABLE
from paceline.settings import RunSettings, WorkerSettings

OF_RUN_AND_SERVER = """
JOB --tasks --micro-batch --micro-steps --rounds --epochs --until --eval-every --seed --sums --precision --channels-last
--compile --init --threads --policy --constants --alpha --means --mean-max --k-start --k-step --switch-at --k-test
--k-burn-in --staleness --partition --run-dir --json --data --metrics-port --metrics-host --reflection --inline-bytes
--push-memory --resume --checkpoint-every --keep-checkpoints --best --grace --idle-exit --strikes
--device --eval-device --lost-after --silent-after --progress-after --heartbeat --patience --log --price
--web-port
"""
FLAGS = {
    "run": f"{OF_RUN_AND_SERVER} --workers --pace --delay --delay-seed --loaders --loader-limit --cache --cache-size",
    "server": f"{OF_RUN_AND_SERVER} --web-host --min-workers --bind --insecure --tls-dir --tokens",
    "ray": f"{OF_RUN_AND_SERVER} --workers --address --cpus-per-worker --gpus-per-worker",
    "worker": "HOST:PORT JOB --name --reconnect-for --tls-dir --token-file --data --device --pace --delay --delay-seed"
    " --loaders --loader-limit --cache --cache-size",
}


@pytest.mark.parametrize("command", FLAGS)
def test_the_flags_are_these(command: str) -> None:
    assert sorted(option.flag for option in options_of(command)) == sorted(FLAGS[command].split())


def test_every_setting_of_server_and_worker_has_a_flag() -> None:
    fields = {option.field for option in OPTIONS}
    for model in (RunSettings, WorkerSettings, RunCommand, ServerCommand, WorkerCommand):
        assert set(model.model_fields) <= fields


def test_names_and_variables_are_unambiguous() -> None:
    assert len({option.name for option in OPTIONS}) == len(OPTIONS)
    assert len({option.variable for option in OPTIONS}) == len(OPTIONS)
    # What the environment says besides the settings is no setting's.
    assert not {option.variable for option in OPTIONS} & {FORMAT_VARIABLE, VARIABLE, "PACELINE_MALLOPT"}


@pytest.mark.parametrize("command", FLAGS)
def test_the_help_text_names_every_flag_and_gives_examples(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "paceline.cli", command, "--help"],
        capture_output=True,
        text=True,
        check=False,
        env={"COLUMNS": "200", "PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    for option in options_of(command):
        assert option.flag in done.stdout
    assert f"paceline {command} " in done.stdout.split("Examples:")[1]


def test_help_and_mistakes_import_neither_torch_nor_grpc() -> None:
    script = """
import sys
from paceline.cli.app import run_command_line
for line in ("--help", "run --help", "run job.py:Job --tasks 0", "server job.py:Job --print-config"):
    run_command_line(line.split())
print(sorted({"torch", "grpc"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


OF_ASKING = "HOST:PORT --tls-dir --token-file"
# The commands that have no settings of their own.
OTHERS = {
    "status": f"{OF_ASKING} --json --timeout",
    "stop": f"{OF_ASKING} --grace",
    "drain": f"{OF_ASKING} NAME",
    "pause": f"{OF_ASKING} NAME",
    "resume": f"{OF_ASKING} NAME",
    "checkpoint now": OF_ASKING,
    "check": "JOB --data --micro-batch --tasks --workers --sums --loaders --device --link --json",
    "init": "DIR --template",
    "plan": "RUN --means --params --link --server-link --tasks --price --law --policy --rounds --seed --json --plot",
    "doctor": f"{OF_ASKING} JOB --data --name",
    "report": "RUN... --html --json",
    "certs init": "DIR --host --days",
    "token create": "--tokens --name --role --expires",
    "token ls": "--tokens",
    "token revoke": "--tokens ID|NAME",
}


@pytest.mark.parametrize("command", OTHERS)
def test_the_flags_of_the_other_commands_are_these(command: str) -> None:
    found: Any = typer.main.get_command(app)
    for word in command.split():
        found = found.commands[word]
    names = [part.opts[0] if part.param_type_name == "option" else part.metavar for part in found.params]
    assert sorted(names) == sorted(OTHERS[command].split())


@pytest.mark.parametrize("command", OTHERS)
def test_no_command_takes_a_token_as_an_argument(command: str) -> None:
    assert "--token" not in OTHERS[command].split()
    assert "--token" not in {option.flag for option in OPTIONS}
