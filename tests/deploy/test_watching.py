"""What Prometheus and Grafana are given: rules that fire when they should, and queries of metrics that there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

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
