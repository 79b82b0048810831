"""docs/remote-workers.md and deploy/systemd: the commands join a real server, and the unit says what the code does."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from paceline.cli.options import options_of
from paceline.errors import RefusedError, SettingsError, TryAgainError, UnavailableError, UsageError
from paceline.server.ledger_reader import LedgerReader
from tests.docs.flowers import write_flowers
from tests.docs.test_readme import BLOCK, ROOT, run
from tests.docs.test_readme import environment as docs_environment
from tests.system.cluster import cluster, environment, paceline, until
from tests.system.wire import hosts, why_not

PAGE = (ROOT / "docs" / "remote-workers.md").read_text(encoding="utf-8")
UNIT = ROOT / "deploy" / "systemd" / "paceline-worker.service"
SETTINGS = ROOT / "deploy" / "systemd" / "worker.env"


class _Unit(configparser.ConfigParser):
    def optionxform(self, optionstr: str) -> str:
        return optionstr


def unit() -> configparser.ConfigParser:
    found = _Unit(interpolation=None)
    found.read(UNIT)
    return found


def codes(text: str) -> set[int]:
    return set(map(int, text.split()))


def test_the_unit_starts_again_after_what_passes_and_not_after_what_must_be_mended() -> None:
    service = unit()["Service"]
    assert codes(service["RestartForceExitStatus"]) == {UnavailableError.exit_code, TryAgainError.exit_code}
    mended = {UsageError.exit_code, RefusedError.exit_code, SettingsError.exit_code}
    assert codes(service["RestartPreventExitStatus"]) == mended


def variables() -> dict[str, str]:
    lines = [line for line in SETTINGS.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def test_the_units_settings_are_the_workers() -> None:
    known = {option.variable for option in options_of("worker")}
    assert set(variables()) <= known
    assert unit()["Service"]["Environment"].split("=")[0] in known


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/opt/paceline/bin/paceline", "/bin/true").replace("User=paceline\n", ""))
    done = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False)
    assert str(copy) not in done.stderr, done.stderr


@pytest.mark.slow
@pytest.mark.system
def test_the_commands_and_the_units_settings_join_a_server(tmp_path: Path) -> None:
    blocks = {found["mark"]: found["text"] for found in BLOCK.finditer(PAGE)}
    write_flowers(tmp_path)
    for line in blocks["guard"].splitlines():
        run(line.replace("--host main-node", "--host 127.0.0.1"), tmp_path)
    guards = ("--tls-dir", str(tmp_path / "tls"), "--tokens", str(tmp_path / "tokens.json"))
    flags = ("--data", str(tmp_path / "data"), "--micro-batch", "8", "--tasks", "4", "--rounds", "40", *guards)
    with cluster(tmp_path, str(tmp_path / "my_job.py:Flowers"), *flags) as machines:
        until(lambda: paceline("doctor", machines.address).returncode == 77, "a server that wants certificates")
        doctor, worker = (line.replace("main-node:7070", machines.address) for line in blocks["join"].splitlines())
        assert "nothing keeps this worker away" in run(doctor, tmp_path)
        # As the unit would: settings as variables, nothing on the command line.
        places = {
            "PACELINE_SERVER": machines.address,
            "PACELINE_JOB": "my_job.py:Flowers",
            "PACELINE_DATA": "data",
            "PACELINE_TLS_DIR": "tls",
            "PACELINE_TOKEN_FILE": "w1.token",
        }
        assert set(places) < set(variables())
        told = environment() | variables() | places
        command = [sys.executable, "-m", "paceline.cli", "worker"]
        done = subprocess.run(command, cwd=tmp_path, env=told, capture_output=True, text=True, check=False, timeout=100)
        assert done.returncode == 0, done.stderr
        machines.end("server")
    assert worker.startswith("paceline worker 127.0.0.1:")
    assert paceline("doctor", machines.address).returncode == 69


@pytest.mark.slow
@pytest.mark.system
@pytest.mark.netns
@pytest.mark.timeout(240)
def test_three_hosts_by_the_words_of_the_guide(tmp_path: Path) -> None:
    """The guide's commands as they stand, each on its host, with nothing but the files that the guide names."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    blocks = {found["mark"]: found["text"] for found in BLOCK.finditer(PAGE)}
    folders = {name: tmp_path / name for name in ("main-node", "lab-1", "lab-2")}
    for folder in folders.values():
        folder.mkdir()
        write_flowers(folder)
    with hosts(*folders) as inside:

        def start(host: str, line: str) -> subprocess.Popen[str]:
            return subprocess.Popen(
                [*inside[host], "sh", "-c", f"exec {line}"],
                cwd=folders[host],
                env=environment() | {"PATH": docs_environment()["PATH"]},
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )

        def done(host: str, line: str) -> tuple[int, str]:
            process = start(host, line)
            said, _ = process.communicate(timeout=90)
            return process.returncode, said

        for line in blocks["guard"].splitlines():
            assert done("main-node", line)[0] == 0
        assert done("main-node", "paceline token create --tokens tokens.json --name w2 > w2.token")[0] == 0
        for host, token in (("lab-1", "w1.token"), ("lab-2", "w2.token")):
            (folders[host] / "tls").mkdir()
            for name in ("tls/ca.pem", "tls/worker.pem", "tls/worker.key"):
                shutil.copy(folders["main-node"] / name, folders[host] / name)
            shutil.copy(folders["main-node"] / token, folders[host] / token)
        guards = "--bind 0.0.0.0:7070 --tls-dir tls --tokens tokens.json --min-workers 2 --run-dir run"
        flags = "--data data --micro-batch 8 --tasks 6 --rounds 60 --sums exact"
        server = start("main-node", f"paceline server my_job.py:Flowers {guards} {flags}")
        doctor, worker = blocks["join"].splitlines()
        until(lambda: "nothing keeps this worker away" in done("lab-1", doctor)[1], "a server that would have it", 60)
        # A worker of one name does not get in with the token of another, nor anybody without a certificate.
        code, said = done("lab-2", worker.replace("w1.token", "w2.token"))
        assert (code, "w2" in said) == (77, True), said
        assert done("lab-2", "paceline status main-node:7070")[0] == 77
        workers = [start("lab-1", worker), start("lab-2", worker.replace("w1", "w2"))]
        said, _ = server.communicate(timeout=120)
        assert server.returncode == 0, said
        for process in workers:
            text, _ = process.communicate(timeout=60)
            assert process.returncode == 0, text
    with LedgerReader(folders["main-node"] / "run" / "ledger.sqlite") as ledger:
        assert len(ledger.rounds()) == 60
        assert {lease.worker for lease in ledger.leases() if lease.kept} == {"w1", "w2"}
