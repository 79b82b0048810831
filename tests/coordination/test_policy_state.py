"""What a policy keeps: another of the same options goes on with it as the first would have, plan for plan."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from paceline.coordination import Machine, Plan, Policy, View, WorkerView
from paceline.coordination.ids import WorkerName
from paceline.coordination.plan import PolicyState, Update
from paceline.coordination.policies import POLICY_NAMES, PolicyOptions, make_policy
from paceline.errors import UsageError
from paceline.simulation import Simulation
from tests.coordination.checked import Checked
from tests.simulation.chaos import Case, random_case

SEEDS = range(4)
# These decide from the views alone; cmab-lcb but for ties, which there are none of.
STATELESS = frozenset(
    (
        "fixed",
        "greedy",
        "k-sync",
        "k-batch-sync",
        "k-async",
        "k-batch-async",
        "asgd",
        "ringmaster",
        "malenia",
        "cmab-oracle",
    )
)


class Taped:
    """A policy of whom every question is written down, with its answer and what it kept before."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.name = policy.name
        self.tape: list[tuple[PolicyState, View | Update, Plan | None]] = []
        self.rows: list[tuple[str, View | Update, str]] = []

    @property
    def needs(self) -> int:
        return self.policy.needs

    def plan(self, view: View) -> Plan:
        before = json.dumps(self.policy.state())
        plan = self.policy.plan(view)
        self.rows.append((before, view, shown(plan)))
        return plan

    def updated(self, update: Update) -> None:
        self.rows.append((json.dumps(self.policy.state()), update, ""))
        self.policy.updated(update)

    def state(self) -> PolicyState:
        return self.policy.state()

    def restore(self, state: PolicyState) -> None:
        self.policy.restore(state)


def shown(plan: Plan) -> str:
    """Write a plan so that two can be compared; its functions are those of its class."""
    return repr((dict(plan.allocation), plan.quota, dict(plan.limits_s), plan.reason, plan.scalars, plan.mark))


def history(policy: str, seed: int) -> tuple[Case, list[tuple[str, View | Update, str]]]:
    """Run a random cluster with random faults; give all that its policy was asked and told."""
    case = random_case(policy, seed)
    taped = Taped(case.make_policy())
    machine = Machine(case.make_machine()._state.settings, taped)
    Simulation(Checked(machine), case.workers, faults=case.faults, world=case.world, seed=seed).run(until_s=2000.0)
    return case, taped.rows


@pytest.mark.parametrize("name", POLICY_NAMES)
def test_restored_policy_plans_as_the_first_would_have(name: str) -> None:
    compared = 0
    for seed in SEEDS:
        case, rows = history(name, seed)
        for start in range(0, len(rows), max(1, len(rows) // 60)):
            other = replace(case, seed=case.seed + 1000).make_policy()
            # It has a past of its own, which must not show.
            for _, said, _ in rows[: min(start, 6)]:
                other.plan(said) if isinstance(said, View) else other.updated(said)
            other.restore(json.loads(rows[start][0]))
            for before, said, plan in rows[start : start + 30]:
                assert json.dumps(other.state()) == before
                if isinstance(said, View):
                    assert shown(other.plan(said)) == plan
                    compared += 1
                else:
                    other.updated(said)
    assert compared > 100


@pytest.mark.parametrize("k_test", ["pflug", "pflug-raw", "distance"])
def test_stationarity_test_goes_on_in_the_midst_of_a_phase(k_test: str) -> None:
    options = PolicyOptions(tasks=6, k_start=1, k_test=k_test, k_burn_in=3)
    rng = np.random.default_rng(4)
    names = [WorkerName(f"w{number}") for number in range(6)]
    workers = tuple(WorkerView(name=name, tasks_done=1, busy_s=1.0, rounds=1, founder=True) for name in names)
    first = make_policy("adaptive-k-sync", options, rng=rng)
    seen: set[str] = set()
    for number in range(1, 80):
        view = View(round=number, tasks=6, workers=workers, joined=6, again=False)
        scalars = {"inner-product": float(rng.normal()), "distance": float(number**0.3 + rng.uniform())}
        update = Update(version=number, loss=1.0, scalars=scalars, finished=())
        for before in (first.state(), None):
            if before is None:
                first.updated(update)
            other = make_policy("adaptive-k-sync", options, rng=rng)
            other.restore(json.loads(json.dumps(first.state())))
            assert other.state() == first.state()
            seen.add(str(first.state()["phase_begins"]) + str(first.state()["k"]))
            if before is not None:
                assert shown(other.plan(view)) == shown(first.plan(view))
    # Phases began and went on, and k grew.
    assert {"True1", "False1", "True2", "False2"} <= seen


@pytest.mark.parametrize("name", POLICY_NAMES)
def test_state_does_not_change_when_the_policy_goes_on(name: str) -> None:
    changed = False
    for seed in SEEDS:
        case, rows = history(name, seed)
        policy = case.make_policy()
        states: list[tuple[PolicyState, str]] = []
        for _, said, _ in rows:
            states.append((policy.state(), json.dumps(policy.state())))
            policy.plan(said) if isinstance(said, View) else policy.updated(said)
        assert all(json.dumps(state) == written for state, written in states)
        changed = changed or states[0][1] != states[-1][1]
    assert changed is (name not in {*STATELESS, "cmab-lcb"})


def leaves(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """List the places of a state."""
    places = [at]
    if isinstance(value, Mapping):
        places += [place for key, one in value.items() for place in leaves(one, (*at, key))]
    elif isinstance(value, list):
        places += [place for number, one in enumerate(value[:3]) for place in leaves(one, (*at, number))]
    return places


def replaced(state: Any, place: tuple[Any, ...], wrong: object) -> Any:
    if not place:
        return wrong
    changed = copy.deepcopy(state)
    inner = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = wrong
    return changed


@pytest.mark.parametrize("name", POLICY_NAMES)
@pytest.mark.parametrize("wrong", [{"stranger": 1}, [[], {}], "words", -1, 0.5j, True], ids=repr)
def test_state_that_is_wrong_anywhere_is_refused_and_changes_nothing(name: str, wrong: object) -> None:
    case, rows = history(name, 1)
    state = json.loads(rows[-1][0])
    policy = case.make_policy()
    before = json.dumps(policy.state())
    refused = named = 0
    for place in leaves(state):
        found: Any = state
        for key in place:
            found = found[key]
        if type(found) is type(wrong) and not isinstance(wrong, Mapping):
            continue  # another value of the right kind
        try:
            policy.restore(replaced(state, place, wrong))
        except UsageError as error:
            named += f"state of policy {name}" in str(error)
            refused += 1
            assert json.dumps(policy.state()) == before
        else:
            pytest.fail(f"{wrong!r} was taken at {place}")
    assert named == refused > 0


@pytest.mark.parametrize("name", POLICY_NAMES)
def test_state_without_a_key_or_with_one_too_many_is_refused(name: str) -> None:
    case, rows = history(name, 1)
    state = json.loads(rows[-1][0])
    policy = case.make_policy()
    with pytest.raises(UsageError, match="stranger is unknown"):
        policy.restore({**state, "stranger": 1})
    for key in state:
        with pytest.raises(UsageError, match=f"{key} is missing"):
            policy.restore({other: value for other, value in state.items() if other != key})


def test_generator_of_another_kind_is_refused() -> None:
    case, _ = history("uniform", 1)
    policy = case.make_policy()
    for generator in (np.random.MT19937(1), np.random.Philox(1), np.random.SFC64(1)):
        state = {"rng": json.loads(json.dumps(generator.state, default=lambda value: value.tolist()))}
        with pytest.raises(UsageError, match="expected a state of the bit generator PCG64"):
            policy.restore(state)
