"""deploy/kubernetes: it builds, fits Kubernetes' own schemas, and its containers' arguments are paceline's."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from paceline.certificates import make_certificates
from paceline.cli.app import run_command_line

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed: it comes with the extra docs")
FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
SCHEMAS = "1.31"


def documents(*names: str) -> list[dict[str, Any]]:
    return [document for name in names for document in yaml.safe_load_all((FOLDER / name).read_text())]


def container(kind: str) -> dict[str, Any]:
    (found,) = [one for one in documents("server.yaml", "workers.yaml") if one["kind"] == kind]
    (only,) = found["spec"]["template"]["spec"]["containers"]
    return {**only, "grace": found["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]}


@pytest.mark.parametrize("kind", ["StatefulSet", "Deployment"])
def test_the_arguments_are_such_that_paceline_takes_them(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line([*container(kind)["args"], "--print-config"]) == 0, capsys.readouterr().err


def test_a_pod_has_time_to_save_what_it_has() -> None:
    server = container("StatefulSet")
    assert "--grace=30s" in server["args"]
    assert server["grace"] >= 30 + 60
    assert container("Deployment")["grace"] >= 60


def test_ports_are_those_that_are_served() -> None:
    server = container("StatefulSet")
    ports = {port["name"]: port["containerPort"] for port in server["ports"]}
    args = dict(arg.removeprefix("--").split("=", 1) for arg in server["args"] if arg.startswith("--"))
    assert str(ports["grpc"]) == args["bind"].split(":")[1]
    assert (str(ports["metrics"]), str(ports["web"])) == (args["metrics-port"], args["web-port"])
    (service,) = [one for one in documents("server.yaml") if one["kind"] == "Service"]
    assert {port["name"]: port["port"] for port in service["spec"]["ports"]} == ports
    assert container("Deployment")["args"][1] == f"{service['metadata']['name']}:{ports['grpc']}"


@pytest.mark.slow
def test_it_builds_and_fits_the_schemas(tmp_path: Path) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    schemas = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    copy = tmp_path / "kubernetes"
    shutil.copytree(FOLDER, copy, ignore=shutil.ignore_patterns("tls"))
    make_certificates(copy / "tls", ["paceline-server"], 30)

    def build(folder: Path) -> list[dict[str, Any]]:
        done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return list(yaml.safe_load_all(done.stdout))

    built = build(copy)
    # An overlay with another image and another job, as the guide shows.
    page = (FOLDER.parents[1] / "docs" / "clusters.md").read_text()
    (overlay,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kustomization.yaml").write_text(overlay.replace("../deploy/kubernetes", "../kubernetes"))
    for document in build(tmp_path / "mine"):
        if document["kind"] in ("StatefulSet", "Deployment"):
            schemas.validate(document, SCHEMAS, strict=True)
            (only,) = document["spec"]["template"]["spec"]["containers"]
            assert only["image"] == "registry.example.org/mine:1"
            assert "mine.job:Mine" in only["args"]
            assert "examples/digits.py:Digits" not in only["args"]
    kinds = [document["kind"] for document in built]
    assert sorted(kinds) == sorted(
        ["Namespace", "Secret", "Secret", "Service", "StatefulSet", "Deployment", "PodDisruptionBudget"]
    )
    for document in built:
        schemas.validate(document, SCHEMAS, strict=True)
        if document["kind"] != "Namespace":
            assert document["metadata"]["namespace"] == "paceline"
    # A kind of the operator's own, which Kubernetes has no schema of.
    (monitor,) = build(copy / "monitoring")
    services = [one for one in built if one["kind"] == "Service"]
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    assert all(wanted <= service["metadata"]["labels"].items() for service in services)
    assert monitor["spec"]["endpoints"][0]["port"] in {port["name"] for port in services[0]["spec"]["ports"]}
