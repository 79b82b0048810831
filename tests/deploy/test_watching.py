"""What Prometheus and Grafana are given: rules that fire when they should, and queries of metrics that there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

TOP = Path(__file__).parents[2]
RULES = TOP / "deploy" / "prometheus" / "alerts.yml"
DASHBOARD = TOP / "deploy" / "grafana" / "dashboards" / "paceline.json"
DATA_SOURCE = TOP / "deploy" / "grafana" / "provisioning" / "datasources" / "prometheus.yml"


def known_metrics() -> set[str]:
    """Give the names of docs/metrics.md, which a test holds against the server's; a histogram's are three."""
    rows = re.findall(r"^\| `(paceline_\w+)` \| (\w+) \|", (TOP / "docs" / "metrics.md").read_text(), re.MULTILINE)
    names = {name for name, _ in rows}
    return names | {
        f"{name}_{part}" for name, kind in rows if kind == "histogram" for part in ("sum", "count", "bucket")
    }


def test_alerts_fire_when_they_should_and_only_then() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: it comes with Prometheus")
    command = [promtool, "test", "rules", str(Path(__file__).parent / "alerts_test.yml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", [RULES, DASHBOARD], ids=lambda path: path.name)
def test_only_metrics_of_the_server_are_asked_for(path: Path) -> None:
    asked = set(re.findall(r"\bpaceline_\w+", path.read_text()))
    assert len(asked) >= 5
    assert asked <= known_metrics()


def test_panels_ask_the_data_source_that_is_provisioned_and_do_not_overlap() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    (uid,) = re.findall(r"uid: (\S+)", DATA_SOURCE.read_text())
    for asking in [*panels, *(target for panel in panels for target in panel["targets"])]:
        assert asking["datasource"] == {"type": "prometheus", "uid": uid}
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in panels
        for x in range(panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["h"])
    ]
    assert len(places) == len(set(places))
    assert max(x for x, _ in places) < 24


def unknown(ours: Any, theirs: Any, place: str = "dashboard") -> Iterator[str]:
    """Name what is in one document and not, or otherwise, in the other."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            if key in theirs:
                yield from unknown(value, theirs[key], f"{place}.{key}")
            else:
                yield f"{place}.{key}"
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for number, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from unknown(mine, other, f"{place}[{number}]")
    elif ours != theirs:
        yield f"{place}: {ours!r} and {theirs!r}"


@pytest.mark.slow
def test_grafanas_own_model_of_a_dashboard_knows_every_field() -> None:
    sdk = pytest.importorskip(
        "grafana_foundation_sdk.models.dashboard", reason="grafana-foundation-sdk is not installed"
    )
    encoder = pytest.importorskip("grafana_foundation_sdk.cog.encoder")
    pytest.importorskip("grafana_foundation_sdk.cog.plugins").register_default_plugins()
    written = json.loads(DASHBOARD.read_text())
    read = json.loads(json.dumps(sdk.Dashboard.from_json(written), cls=encoder.JSONEncoder))
    assert list(unknown(written, read)) == []
    # The model leaves out what it does not know.
    wrong = {**written, "panels": [{**written["panels"][0], "fieldConfgi": {}}]}
    read = json.loads(json.dumps(sdk.Dashboard.from_json(wrong), cls=encoder.JSONEncoder))
    assert list(unknown(wrong, read)) == ["dashboard.panels[0].fieldConfgi"]


def test_provisioning_files_have_the_fields_that_grafana_reads() -> None:
    """As its documentation lists them; it has no schema of these files."""
    yaml = pytest.importorskip("yaml")
    folder = TOP / "deploy" / "grafana" / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source.keys() <= {"name", "uid", "type", "access", "url", "isDefault", "jsonData", "editable", "version"}
    assert (source["type"], source["access"]) == ("prometheus", "proxy")
    services = yaml.safe_load((TOP / "docker-compose.yml").read_text())["services"]
    assert source["url"].removeprefix("http://").split(":")[0] in services
    (provider,) = yaml.safe_load((folder / "dashboards" / "paceline.yml").read_text())["providers"]
    assert provider.keys() <= {"name", "type", "options", "allowUiUpdates", "disableDeletion", "updateIntervalSeconds"}
    mounts = [volume.split(":")[:2] for volume in services["grafana"]["volumes"]]
    assert ["./deploy/grafana/dashboards", provider["options"]["path"]] in mounts
    assert ["./deploy/grafana/provisioning", "/etc/grafana/provisioning"] in mounts
