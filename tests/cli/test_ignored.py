"""Settings that the chosen policy does not look at are told of, for each of the policies."""

from __future__ import annotations

from pathlib import Path

import pytest

from paceline.cli.configuration import build, gather
from paceline.cli.ignored import given_in_vain
from paceline.coordination.policies import POLICY_NAMES, options_read
from tests.system.cluster import paceline

# Each flag, a value, and the policies that look at it (docs/policies.md).
READERS = {
    "constants": ("paper", {"ata", "ata-empirical"}),
    "alpha_s": ("0.1", {"ata"}),
    "means_s": ("w1=0.1,w2=0.2", {"fixed", "cmab-oracle"}),
    "mean_max_s": ("1", {"cmab-lcb"}),
    "k_start": ("1", {"cmab-lcb", "cmab-kl", "cmab-oracle", "adaptive-k-sync"}),
    "k_step": ("1", {"cmab-lcb", "cmab-kl", "cmab-oracle", "adaptive-k-sync"}),
    "switch_at": ("100", {"cmab-lcb", "cmab-kl", "cmab-oracle"}),
    "k_test": ("pflug", {"adaptive-k-sync"}),
    "k_burn_in": ("10", {"adaptive-k-sync"}),
    "staleness": ("4", {"k-async", "k-batch-async", "asgd", "ringmaster"}),
}


def told(tmp_path: Path, policy: str, **flags: str) -> list[str]:
    needed = {"means_s": "w1=0.1,w2=0.2"} if policy in ("fixed", "cmab-oracle") else {}
    parts = {"partition": "2"} if policy == "malenia" else {}
    given = gather("run", {"job": "a.py:A", "policy": policy, "tasks": "2", **needed, **parts, **flags}, {}, tmp_path)
    return list(given_in_vain("run", given, build("run", given)))


@pytest.mark.parametrize("policy", POLICY_NAMES)
@pytest.mark.parametrize("field", READERS)
def test_what_a_policy_does_not_look_at_is_said_of_each_flag(tmp_path: Path, policy: str, field: str) -> None:
    value, readers = READERS[field]
    lines = told(tmp_path, policy, **{field: value})
    if policy in readers:
        assert lines == []
        return
    (line,) = lines
    assert f" is of no use: policy {policy} does not look at it; " in line
    named = line.rpartition("; ")[2].removesuffix(" does").removesuffix(" do").replace(" and ", ", ").split(", ")
    assert set(named) == readers


@pytest.mark.parametrize("policy", POLICY_NAMES)
def test_nothing_is_said_of_what_nobody_gave(tmp_path: Path, policy: str) -> None:
    assert told(tmp_path, policy) == []


def test_the_table_knows_every_option() -> None:
    known = set(READERS) | {"parts"}
    assert set().union(*map(options_read, POLICY_NAMES)) == known


def test_where_it_was_given_is_named(tmp_path: Path) -> None:
    (tmp_path / "paceline.toml").write_text("k-start = 2\n")
    given = gather("run", {"job": "a.py:A"}, {"PACELINE_STALENESS": "3"}, tmp_path)
    lines = list(given_in_vain("run", given, build("run", given)))
    assert [line.split(" is of no use")[0] for line in lines] == ["k-start in paceline.toml", "PACELINE_STALENESS"]


def test_the_command_says_it_and_goes_on(tmp_path: Path) -> None:
    run = ("run", "tests/jobs.py:Tiny", "--rounds", "2", "--tasks", "2", "--run-dir", str(tmp_path / "r"))
    done = paceline(*run, "--staleness", "3")
    assert done.returncode == 0, done.stderr
    assert "paceline: --staleness is of no use: policy ata-empirical does not look at it; k-async, " in done.stderr
