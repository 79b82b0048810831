"""docker-compose.yml for real: images built, containers started, the run to its end, a value from Prometheus.

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
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
LAB = TOP.parent / "shared" / "tools" / "container-lab"
PROJECT = "paceline-test"
ROUNDS = 200  # the run must last for a few scrapes and a health check
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
    """The composed services, and where Prometheus answers."""

    prometheus: str

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


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    (prometheus,) = re.findall(r"image: (\S*prometheus\S*)", (TOP / "docker-compose.yml").read_text())
    if not image_exists(prometheus):
        run(LAB, "image", prometheus, "prometheus")
    port = free_port()
    env = (
        os.environ
        | with_pip_constraints(tmp_path)
        | {
            # One layer per image: the lab copies all files for each.
            "BUILDAH_LAYERS": "false",
            "ROUNDS": str(ROUNDS),
            "PACELINE_HOST_PORT": str(free_port()),
            "PROMETHEUS_HOST_PORT": str(port),
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
        yield Running(f"http://127.0.0.1:{port}")
    finally:
        subprocess.run([*compose, "down", "--volumes"], cwd=TOP, env=env, capture_output=True, check=False)


def test_composed_services_train_to_the_end_and_prometheus_has_seen_it(running: Running) -> None:
    wait_for("rounds in Prometheus", lambda: running.ask("paceline_rounds_total > 0"), 300)
    assert running.ask("paceline_workers_connected") == [len(WORKERS)]
    wait_for("the server is healthy", lambda: healthy("server"), 300)
    assert run("podman", "wait", container("server"), timeout_s=600).strip() == "0", server_log()
    for worker in WORKERS:
        assert run("podman", "wait", container(worker), timeout_s=60).strip() == "0"
    # What Prometheus keeps outlives the server. Its last look can be some rounds before the last.
    (rounds,) = running.ask("max_over_time(paceline_rounds_total[1h])")
    assert 0 < rounds <= ROUNDS
    used = running.ask("max_over_time(paceline_tasks_used_total[1h])")
    assert len(used) == len(WORKERS)
    assert sum(used) == 23 * rounds
    run_folder = json.loads(run("podman", "volume", "inspect", f"{PROJECT}_runs"))[0]["Mountpoint"]
    assert (Path(run_folder) / "digits" / "model.safetensors").is_file()
    (accuracy,) = re.findall(r"evaluated +accuracy=([0-9.]+)", server_log())
    assert float(accuracy) >= 0.97
