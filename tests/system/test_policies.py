"""Every policy trains over gRPC, and its parameters are those of a replay of its ledger in one process."""

from __future__ import annotations

from pathlib import Path

import pytest

from paceline.coordination.policies import EMPLOYING, POLICY_NAMES
from paceline.server.past_run import open_run
from paceline.server.replay import Replay
from paceline.server.verdict import Verdict, judge
from tests.system.replaying import ROUNDS, train

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(300)]

MEANS = ("--means", "0.002,0.004,0.005")
# Of three workers no more than three can be waited for.
NEEDS = dict.fromkeys(EMPLOYING, ("--tasks", "2")) | {
    "fixed": MEANS,
    "cmab-oracle": ("--tasks", "2", *MEANS),
    "cmab-kl": ("--tasks", "3", "--switch-at", "10,20"),
    "adaptive-k-sync": ("--tasks", "3", "--k-burn-in", "3"),
    "malenia": ("--partition", "3"),
}
# Of three workers one is always slower than an update.
STALE = {"k-async", "k-batch-async", "asgd", "ringmaster"}


@pytest.mark.parametrize("policy", POLICY_NAMES)
def test_every_policys_parameters_are_those_of_its_replay(tmp_path: Path, policy: str) -> None:
    train(tmp_path / "run", "DigitsLike", "--policy", policy, "--sums", "exact", *NEEDS.get(policy, ()))
    with open_run(tmp_path / "run") as run:
        judgement = judge(run, Replay(run))
        assert (run.staleness > 0) == (policy in STALE)
    assert judgement.difference is None
    assert (judgement.verdict, judgement.rounds, judgement.tensors) == (Verdict.BIT_EQUAL, ROUNDS, {})
