"""docker-compose.yml for real: built, trained, watched by Prometheus, a worker stopped, taken down and up again.

It needs root, iptables, and what `../shared/tools/container-lab setup` installs (podman and stand-in images); without
them it is skipped. It differs from a Docker engine where the lab does: health checks are not scheduled, so the test
runs one; the stand-in's root folder is open to root alone, so the services run as root; all files of an image are
copied for each layer and container, so this takes minutes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from paceline.errors import RefusedError
from paceline.server.ledger_reader import LedgerReader
from paceline.version import __version__

TOP = Path(__file__).parents[2]
LAB = TOP.parent / "shared" / "tools" / "container-lab"
PROJECT = "paceline-test"
MORE_ROUNDS = 60  # of the second life
WORKERS = ("worker", "worker-2", "worker-3", "worker-4")
SERVICES = ("server", *WORKERS, "prometheus")

pytestmark = [pytest.mark.compose, pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(1800)]


def why_not() -> str:
    """Say what is missing here, or nothing."""
    if not LAB.is_file():
        return "../shared/tools/container-lab is not there"
    if os.geteuid() != 0:
        return "containers need root"
    for tool in ("podman", "iptables"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed: run ../shared/tools/container-lab setup and apt-get install iptables"
    if not image_exists("python:3.11-slim"):
        return "the stand-in images are not built: run ../shared/tools/container-lab setup"
    return ""


def image_exists(name: str) -> bool:
    return subprocess.run(["podman", "image", "exists", name], check=False).returncode == 0


def run(*command: str | Path, timeout_s: float = 900, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=TOP, env=env, capture_output=True, text=True, timeout=timeout_s, check=False)
    assert done.returncode == 0, f"{command} gave {done.returncode}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def wait_for(what: str, check: Callable[[], object], limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while not check():
        assert time.monotonic() < deadline, f"not within {limit_s:g} s: {what}\n{server_log()}"
        threading.Event().wait(0.5)


def server_log() -> str:
    told = subprocess.run(["podman", "logs", container("server")], capture_output=True, text=True, check=False)
    return (told.stdout + told.stderr)[-4000:]


def container(service: str) -> str:
    return f"{PROJECT}_{service}_1"


def healthy(service: str) -> bool:
    check = ["podman", "healthcheck", "run", container(service)]
    return subprocess.run(check, capture_output=True, check=False).returncode == 0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


@dataclass(frozen=True)
class Running:
    """The composed services, and where Prometheus and the live page answer."""

    prometheus: str
    page: str
    command: tuple[str | Path, ...]
    env: dict[str, str]

    def compose(self, *args: str, **more: str) -> None:
        run(*self.command, *args, env=self.env | more)

    def ask(self, query: str) -> list[float]:
        """Ask Prometheus for an instant vector's values; none while it cannot be reached."""
        url = f"{self.prometheus}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                result = json.load(answer)["data"]["result"]
        except OSError:
            return []
        return [float(series["value"][1]) for series in result]


def with_pip_constraints(folder: Path) -> dict[str, str]:
    """Give an environment in which images are built with the constraints that this machine's pip is held to.

    The lab lets builds see pip's settings and the folders that they name, but no file that they name.
    """
    told = Path("/etc/containers/containers.conf").read_text()
    (settings,) = re.findall(r'"([^":]+):/etc/pip.conf:ro"', told)
    constraints = re.findall(r"^constraint *= *(/.+)$", Path(settings).read_text(), re.MULTILINE)
    mounts = "".join(f'"{path}:{path}:ro",' for path in constraints if Path(path).is_file())
    own = folder / "containers.conf"
    own.write_text(told.replace("volumes = [", f"volumes = [{mounts}"))
    return {"CONTAINERS_CONF": str(own)}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    tmp_path = tmp_path_factory.mktemp("compose")
    reason = why_not()
    if reason:
        pytest.skip(reason)
    (prometheus,) = re.findall(r"image: (\S*prometheus\S*)", (TOP / "docker-compose.yml").read_text())
    if not image_exists(prometheus):
        run(LAB, "image", prometheus, "prometheus")
    port, web_port = free_port(), free_port()
    env = (
        os.environ
        | with_pip_constraints(tmp_path)
        | {
            # One layer per image: the lab copies all files for each.
            "BUILDAH_LAYERS": "false",
            "ROUNDS": "100000",
            "PACELINE_HOST_PORT": str(free_port()),
            "PROMETHEUS_HOST_PORT": str(port),
            "WEB_HOST_PORT": str(web_port),
        }
    )
    as_root = tmp_path / "as_root.yml"
    as_root.write_text(json.dumps({"services": {service: {"user": "root"} for service in ("server", *WORKERS)}}))
    compose = (LAB, "compose", "--profile", "obs", "-f", "docker-compose.yml", "-f", as_root, "-p", PROJECT)
    (base,) = re.findall(r"^ARG PYTHON=(\S+)$", (TOP / "server/Dockerfile").read_text(), re.MULTILINE)
    run("podman", "tag", "docker.io/library/python:3.11-slim", f"docker.io/library/{base}")
    try:
        run(*compose, "build", "server", env=env)
        # Grafana's image has no stand-in.
        run(*compose, "up", "-d", *SERVICES, env=env)
        yield Running(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{web_port}", compose, env)
    finally:
        subprocess.run([*compose, "down", "--volumes"], cwd=TOP, env=env, capture_output=True, check=False)


def panels() -> dict[str, list[str]]:
    """Give the queries of the dashboard by the titles of its panels."""
    board = json.loads((TOP / "deploy" / "grafana" / "dashboards" / "paceline.json").read_text())
    return {
        panel["title"]: [target["expr"].replace("$__rate_interval", "1m") for target in panel["targets"]]
        for panel in board["panels"]
    }


def round_of(running: Running) -> int:
    """Ask the live page for the run's version; 0 while it does not answer."""
    try:
        with urllib.request.urlopen(f"{running.page}/data", timeout=10) as answer:
            return int(json.load(answer)["now"]["version"])
    except OSError:
        return 0


# In this order: each test goes on where the one before it left the cluster.


def test_the_cluster_trains_and_every_panel_has_data(running: Running) -> None:
    wait_for("rounds in Prometheus", lambda: running.ask("paceline_rounds_total > 0"), 300)
    assert running.ask("paceline_workers_connected") == [len(WORKERS)]
    wait_for("the server is healthy", lambda: healthy("server"), 300)
    wait_for("rounds on the live page", lambda: round_of(running) > 0, 60)
    assert len(panels()) >= 12
    for title, queries in panels().items():
        for query in queries:
            if query != "paceline_round_mean":  # this job has none
                wait_for(f"data for panel {title!r}: {query}", partial(running.ask, query), 120)
    (used,) = running.ask("sum(paceline_tasks_used_total)")
    assert used % 23 == 0


def test_the_image_says_what_is_in_it(running: Running) -> None:
    bill = json.loads(run("podman", "exec", container("server"), "cat", "/opt/paceline/sbom.cdx.json"))
    packages = {component["name"]: component["version"] for component in bill["components"]}
    assert packages["paceline"] == __version__
    assert {"torch", "grpcio", "numpy"} <= packages.keys()


def test_a_worker_that_is_stopped_leaves_and_the_others_go_on(running: Running) -> None:
    running.compose("stop", "worker-4")
    assert run("podman", "wait", container("worker-4"), timeout_s=60).strip() == "0"
    after = round_of(running)
    wait_for("further rounds", lambda: round_of(running) > after + 5, 120)
    wait_for("three workers", lambda: running.ask("paceline_workers_connected") == [len(WORKERS) - 1], 60)


def test_down_and_up_goes_on_to_the_end(running: Running) -> None:
    reached = round_of(running)
    running.compose("down")
    rounds = reached + MORE_ROUNDS
    running.compose("up", "-d", "server", *WORKERS, ROUNDS=str(rounds))
    assert run("podman", "wait", container("server"), timeout_s=600).strip() == "0", server_log()
    for worker in WORKERS:
        assert run("podman", "wait", container(worker), timeout_s=60).strip() == "0"
    volume = Path(json.loads(run("podman", "volume", "inspect", f"{PROJECT}_runs"))[0]["Mountpoint"])
    assert (volume / "digits" / "model.safetensors").is_file()
    with LedgerReader(volume / "digits" / "ledger.sqlite") as ledger:
        first, second = ledger.lives()
        assert first.resumed_from is None
        assert reached <= (second.resumed_from or 0) < rounds
        assert [record.round for record in ledger.rounds()] == list(range(1, rounds + 1))
    accuracy = re.findall(r"evaluated +accuracy=([0-9.]+)", server_log())[-1]
    assert float(accuracy) >= 0.97


def test_the_override_asks_for_certificates_and_tokens(running: Running, tmp_path: Path) -> None:
    running.compose("down", "--volumes")
    as_root = tmp_path / "as_root.yml"
    services = ("secrets", "server", *WORKERS)
    as_root.write_text(json.dumps({"services": {service: {"user": "root"} for service in services}}))
    files = ("-f", "docker-compose.yml", "-f", "deploy/compose/tls.yml", "-f", as_root)
    guarded = replace(running, command=(LAB, "compose", *files, "-p", PROJECT))
    status = ("podman", "exec", container("server"), "paceline", "status", "localhost:7070")
    shown = ("--tls-dir", "secrets/tls", "--token-file", "secrets/admin.token", "--json")

    def trains() -> bool:
        asked = subprocess.run([*status, *shown], capture_output=True, text=True, check=False)
        return asked.returncode == 0 and json.loads(asked.stdout)["round"] > 3

    try:
        guarded.compose("up", "-d", *services)
        wait_for("rounds of workers with tokens", trains, 300)
        found = json.loads(run(*status, *shown))
        assert {worker["name"] for worker in found["workers"]} == set(WORKERS)
        for lacking in ((), shown[:2]):
            refused = subprocess.run([*status, *lacking], capture_output=True, text=True, check=False)
            assert refused.returncode == RefusedError.exit_code, refused.stderr
        # The live page has the same certificate, and asks for a token.
        context = ssl._create_unverified_context()
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(running.page.replace("http:", "https:") + "/data", timeout=10, context=context)
    finally:
        subprocess.run(
            [*guarded.command, "down", "--volumes"], cwd=TOP, env=running.env, capture_output=True, check=False
        )
