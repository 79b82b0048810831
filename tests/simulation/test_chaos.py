"""Whatever happens: the run ends, each task is applied at most once, and each round is what its plan demands.

A case is its policy and its seed; `random_case(policy, seed).run()` does it again.
"""

from __future__ import annotations

from collections import Counter

import pytest

from paceline.coordination.effects import SendLease, SendVerdict
from paceline.coordination.ids import LeaseId, TaskId
from paceline.coordination.policies import POLICY_NAMES
from tests.coordination.checked import replayed
from tests.simulation.chaos import ALL_TASKS, NEEDS_WORKERS, check, random_case

SEEDS = range(25)


@pytest.mark.parametrize("policy", [*POLICY_NAMES, "trials"])
def test_run_survives_whatever_happens(policy: str) -> None:
    struck: Counter[str] = Counter()
    for seed in SEEDS:
        case = random_case(policy, seed)
        result, _ = case.run()
        try:
            check(case, result)
        except AssertionError as error:
            raise AssertionError(f"{policy}, seed {seed}: {case}") from error
        struck += result.faults
    # Each kind of fault really happened, most of them often.
    kinds = {"Kill", "Freeze", "CutSession", "CutPush", "LoseAnswer", "CorruptPush", "SecondProcess"}
    kinds |= set() if policy in NEEDS_WORKERS - {"malenia"} else {"Drain"}
    kinds |= set() if policy == "malenia" else {"Pause"}
    assert kinds <= set(struck), struck
    assert struck.total() > 100, struck


@pytest.mark.parametrize(("policy", "seed"), [("asgd", 176), ("ringmaster", 275)])
def test_undecided_results_when_a_closed_round_opens_again(policy: str, seed: int) -> None:
    """Seeds that once stood still: a holder was lost after the close while a result waited for its decision."""
    case = random_case(policy, seed)
    check(case, case.run()[0])


@pytest.mark.parametrize("policy", [*POLICY_NAMES, "trials"])
def test_same_settings_seed_and_events_give_identical_effects(policy: str) -> None:
    for seed in range(3):
        case = random_case(policy, seed)
        _, machine = case.run(keep=True)
        assert len(machine.tape) > 30
        assert replayed(case.make_machine, machine.tape) == [effects for _, _, effects in machine.tape]


@pytest.mark.parametrize("policy", ["greedy", "k-sync", "k-async"])
def test_one_holder_at_a_time_is_told_to_keep_a_task(policy: str) -> None:
    judged = 0
    for seed in range(10):
        case = random_case(policy, seed)
        result, machine = case.run(keep=True)
        ended = {record.lease for record in result.leases if not record.kept}
        keepers: dict[TaskId, set[LeaseId]] = {}
        for _, _, effects in machine.tape:
            for effect in effects:
                if isinstance(effect, SendVerdict) and effect.keep:
                    keepers.setdefault(effect.task, set()).add(effect.lease)
        judged += len(keepers)
        for task, leases in keepers.items():
            assert len(leases - ended) <= 1, f"task {task} was kept in {leases} (seed {seed})"
    assert judged > 100


@pytest.mark.parametrize("policy", ALL_TASKS)
def test_lease_ids_rise_and_are_never_reused(policy: str) -> None:
    case = random_case(policy, 1)
    _, machine = case.run(keep=True)
    first_sent: dict[LeaseId, None] = {}
    for _, _, effects in machine.tape:
        for effect in effects:
            if isinstance(effect, SendLease):
                first_sent.setdefault(effect.lease)
    assert list(first_sent) == sorted(first_sent)


def test_a_case_is_fixed_by_its_seed() -> None:
    first, second = random_case("greedy", 3), random_case("greedy", 3)
    assert first == second
    assert first.run()[0].leases == second.run()[0].leases
