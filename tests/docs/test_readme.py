"""What the README shows is run: every block of commands carries a mark that says how, and a block without one fails."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from paceline import errors
from paceline.cli.configuration import FILE_NAME
from paceline.coordination.policies import POLICY_NAMES
from tests.system.cluster import free_port, until

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"(?:<!-- (?P<mark>[^>]*) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)```\n", re.DOTALL)
# Long enough to be a run, short enough for a test; the last flag of a kind counts.
SHORT = "--rounds 3"


@dataclass(frozen=True)
class Block:
    """One fenced block: what its mark says, its language, its lines."""

    mark: str
    language: str
    text: str

    @property
    def lines(self) -> list[str]:
        return [line for line in self.text.splitlines() if line.strip()]


BLOCKS = [Block(found["mark"] or "", found["language"], found["text"]) for found in BLOCK.finditer(README)]


def marked(mark: str) -> list[Block]:
    return [block for block in BLOCKS if block.mark == mark]


def environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PACELINE_")}
    return {**clean, "PATH": path}


def run(line: str, folder: Path) -> str:
    """Run one line; it must succeed."""
    done = subprocess.run(
        line, shell=True, cwd=folder, env=environment(), capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def answers(line: str, folder: Path) -> bool:
    """Tell whether `paceline status` gets an answer."""
    done = subprocess.run(shlex.split(line), cwd=folder, env=environment(), capture_output=True, check=False)
    return done.returncode == 0


def shortened(line: str) -> str:
    return f"{line} {SHORT}" if re.search(r"paceline (run|server) ", line) and "--print-config" not in line else line


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a folder with the files that the README shows."""
    for block in BLOCKS:
        if block.mark.startswith("file: "):
            (tmp_path / block.mark.removeprefix("file: ")).write_text(block.text)
    return tmp_path


def test_every_block_of_commands_is_covered_by_a_test() -> None:
    covered = {"make", "run", "guard", "cluster", "compose"}
    assert {block.mark for block in BLOCKS if block.language == "sh"} == covered
    assert not [
        block for block in BLOCKS if block.language in ("python", "toml") and not block.mark.startswith("file: ")
    ]
    # The marks are all there is: no block has slipped past the pattern.
    assert README.count("```") == 2 * len(BLOCKS)


@pytest.mark.system
def test_the_first_own_job_runs_as_shown(folder: Path) -> None:
    for block in marked("run"):
        for line in block.lines:
            said = run(shortened(line), folder)
            if "--print-config" in line:
                rows = {row.split()[0]: row.split()[1:] for row in said.splitlines()}
                assert rows["workers"] == ["4", FILE_NAME, "[run]"]
                assert rows["tasks"] == ["32", "PACELINE_TASKS"]
                assert rows["seed"] == ["1", FILE_NAME]
    assert (folder / "out.json").is_file()
    assert (folder / "runs/a/model.safetensors").is_file()


@pytest.mark.system
def test_server_workers_and_status_work_together_as_shown(folder: Path) -> None:
    run("\n".join(marked("run")[0].lines[:2]), folder)
    (guard,), (block,) = marked("guard"), marked("cluster")
    ports = {"7070": str(free_port()), "9464": str(free_port()), "main-node": "127.0.0.1"}
    for line in guard.lines:
        run(line.replace("main-node", "127.0.0.1"), folder)
    lines = []
    for line in block.lines:
        for shown, here in ports.items():
            line = line.replace(shown, here)
        lines.append(shortened(line))
    (server,) = (line for line in lines if line.startswith("paceline server"))
    workers = [line for line in lines if line.startswith("paceline worker")]
    (status,) = (line for line in lines if line.startswith("paceline status"))
    processes = [subprocess.Popen(shlex.split(server), cwd=folder, env=environment())]
    try:
        # With one worker of two the server waits, so that status finds it whenever it asks.
        processes.append(subprocess.Popen(shlex.split(workers[0]), cwd=folder, env=environment()))
        until(lambda: answers(status, folder), "a server that answers")
        assert "waiting" in run(status, folder)
        processes += [subprocess.Popen(shlex.split(line), cwd=folder, env=environment()) for line in workers[1:]]
        assert [process.wait(80) for process in processes] == [0] * len(processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_make_has_the_targets_that_are_named() -> None:
    for line in marked("make")[0].lines:
        target = line.split()[1]
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_compose_has_its_file_and_its_test() -> None:
    assert [line.split()[:3] for line in marked("compose")[0].lines] == [["docker", "compose", "up"]]
    assert (ROOT / "docker-compose.yml").is_file()
    assert (ROOT / "tests/system/test_compose.py").is_file()


def test_links_lead_to_files() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert "://" in target or (ROOT / target).exists(), target


def test_the_table_of_policies_names_them_all() -> None:
    assert set(re.findall(r"^\| `(\w[\w-]*)`", README, re.MULTILINE)) == set(POLICY_NAMES)


def test_the_table_of_exit_codes_names_them_all() -> None:
    rows = re.findall(r"^\| (\d[\d, ]*) \|", README, re.MULTILINE)
    named = {int(code) for row in rows for code in row.split(",")}
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.PacelineError)
    ]
    assert named == {0, 130, 143} | {kind.exit_code for kind in kinds}


def test_the_demo_output_is_that_of_the_present_demo() -> None:
    shown = README.split("<!-- demo output: begin -->")[1].split("<!-- demo output: end -->")[0]
    for words in (
        "ata-empirical",
        "greedy",
        "uniform",
        "worker s",
        "learned s/task",
        "gave the same model, bit for bit",
    ):
        assert words in shown


def test_the_page_of_policies_names_them_all() -> None:
    text = (ROOT / "docs" / "policies.md").read_text()
    table = text.split("| policy | waits for |")[1].split("\n\n")[0]
    firsts = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert {name for first in firsts for name in re.findall(r"`([\w-]+)`", first)} == set(POLICY_NAMES)
