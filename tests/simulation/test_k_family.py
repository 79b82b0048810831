"""The K family, asynchronous SGD, Ringmaster, Malenia and MindFlayer on the virtual clock, against their papers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from paceline.coordination import Machine, MachineSettings
from paceline.coordination.effects import LeaseVerdict, Outcome
from paceline.coordination.policies import PolicyOptions, make_policy
from paceline.laws import Law
from paceline.simulation import SimulatedWorker, Simulation, SimulationResult, World

FOREVER_S = 1e15


def simulate(
    policy: str,
    workers: Sequence[SimulatedWorker],
    rounds: int,
    *,
    parts: int = 0,
    update_s: float = 0.0,
    **told: object,
) -> SimulationResult:
    """Run a policy without faults and latency; a cancel takes effect at once, as in the papers."""
    options = PolicyOptions(parts=parts, **told)  # type: ignore[arg-type]
    settings = MachineSettings(
        tasks=options.tasks,
        parts=parts,
        rounds=rounds,
        min_workers=len(workers),
        silent_after_s=FOREVER_S,
        progress_s=FOREVER_S,
    )
    rule = make_policy(policy, options, rng=np.random.default_rng(0))
    result = Simulation(Machine(settings, rule), workers, world=World(update_s=update_s), seed=3).run()
    assert result.finish is not None
    assert result.finish.outcome is Outcome.DONE, result.finish
    return result


def exponential(means_s: Sequence[float]) -> list[SimulatedWorker]:
    return [SimulatedWorker(name=f"w{i}", task_s=Law("exp", (mean_s,))) for i, mean_s in enumerate(means_s, start=1)]


def staleness(result: SimulationResult) -> list[int]:
    return [record.round - 1 - record.version for record in result.leases if record.kept]


def harmonic_number(n: int) -> float:
    return sum(1.0 / i for i in range(1, n + 1))


@pytest.mark.parametrize(
    ("policy", "expected_s"),
    [
        ("k-sync", harmonic_number(10) - harmonic_number(6)),
        ("k-batch-sync", 4 / 10),
        ("k-async", harmonic_number(10) - harmonic_number(6)),
        ("k-batch-async", 4 / 10),
        ("asgd", 1 / 10),
    ],
)
def test_time_per_update_of_iid_exponential_workers(policy: str, expected_s: float) -> None:
    """Dutta et al. (2018), section 3: n = 10, K = 4, rate 1; memoryless, so that stale work is as good as fresh."""
    result = simulate(policy, exponential([1.0] * 10), 3000, tasks=4)
    assert np.mean(result.round_s) == pytest.approx(expected_s, rel=0.05)


def test_time_per_update_of_unequal_workers() -> None:
    """Specs of the CMAB paper, 3.2: K = 10 of n = 50, means .1 to .9: K-batch 0.080 s, K-sync 0.095 s."""
    workers = exponential([tenths / 10 for tenths in np.random.default_rng(0).integers(1, 10, 50).tolist()])
    rate = sum(1.0 / worker.task_s.mean_s for worker in workers if isinstance(worker.task_s, Law))
    batch = simulate("k-batch-sync", workers, 400, tasks=10)
    assert np.mean(batch.round_s) == pytest.approx(10 / rate, rel=0.05)
    distinct = simulate("k-sync", workers, 400, tasks=10)
    assert 1.05 < np.mean(distinct.round_s) / np.mean(batch.round_s) < 1.35


def test_k_sync_takes_k_distinct_workers_at_the_present_version_and_cancels_the_rest() -> None:
    result = simulate("k-sync", exponential([1.0, 2.0, 3.0, 4.0, 5.0]), 50, tasks=3)
    for update in result.model.updates:
        assert len({applied.worker for applied in update.contributions}) == 3
        assert {applied.version for applied in update.contributions} == {update.version - 1}
    cancelled = sum(record.verdict is LeaseVerdict.CANCELLED for record in result.leases)
    # All five begin anew in each round; what the last round leaves is not recorded as cancelled.
    assert cancelled == 2 * 50
    assert result.wasted_s > 0


@pytest.mark.parametrize(("policy", "k"), [("k-async", 3), ("k-batch-async", 3), ("asgd", 1)])
@pytest.mark.parametrize("update_s", [0.0, 0.3])
def test_asynchronous_policies_waste_nothing_and_apply_each_task_once(policy: str, k: int, update_s: float) -> None:
    result = simulate(policy, exponential([1.0, 2.0, 3.0, 4.0, 20.0]), 200, tasks=3, update_s=update_s)
    assert result.wasted_s == 0.0
    applied = list(result.model.applied_tasks())
    assert len(applied) == len(set(applied)) == 200 * k
    assert all(len(update.tasks()) == k for update in result.model.updates)
    # A slow worker's results count, however late; nobody was cut off.
    assert max(staleness(result)) > 5
    assert {record.verdict for record in result.leases if record.kept} == {LeaseVerdict.APPLIED}


def test_k_async_takes_distinct_workers_and_those_that_delivered_wait() -> None:
    result = simulate("k-async", exponential([1.0, 1.0, 1.0, 1.0, 30.0]), 200, tasks=3)
    for update in result.model.updates:
        assert len({applied.worker for applied in update.contributions}) == 3
    # Who waits for the update begins at the newest version: of four alike, three deliver each time.
    assert np.mean(staleness(result)) < 1.0


def test_mean_staleness_of_asynchronous_sgd_is_the_number_of_others() -> None:
    """Every update is one of n workers' turns: on average n - 1 others' updates come in between."""
    result = simulate("asgd", exponential([1.0] * 8), 3000)
    assert np.mean(staleness(result)) == pytest.approx(7.0, rel=0.03)


@pytest.mark.parametrize("bound", [1, 2, 4])
def test_ringmaster_applies_only_what_is_less_than_r_versions_behind(bound: int) -> None:
    """Maranjyan et al. (2025), Alg. 1: applied iff delta < R; either way the worker starts anew."""
    result = simulate("ringmaster", exponential([1.0, 1.0, 1.0, 6.0]), 300, staleness=bound)
    assert max(staleness(result)) == bound - 1
    dropped = [record for record in result.leases if record.verdict is LeaseVerdict.DROPPED and record.dropped]
    assert dropped
    assert result.wasted_s > 0


def test_ringmaster_with_a_large_bound_is_asynchronous_sgd() -> None:
    workers = exponential([1.0, 2.0, 3.0])
    loose, plain = simulate("ringmaster", workers, 100, staleness=10**6), simulate("asgd", workers, 100)
    assert [update.tasks() for update in loose.model.updates] == [update.tasks() for update in plain.model.updates]
    assert loose.round_s == plain.round_s


def test_malenia_stops_at_the_harmonic_mean_and_every_part_counts_the_same() -> None:
    """Tyurin, Richtarik (2023): stop when n / sum(1/s_i) >= S/n; weights 1/s_i, divisor n (in samples)."""
    n, tasks = 4, 12
    result = simulate("malenia", exponential([1.0, 2.0, 3.0, 9.0]), 60, parts=n, tasks=tasks)
    for update in result.model.updates:
        counts: dict[int, int] = {}
        for applied in update.contributions:
            for done in applied.results:
                counts[done.task % n] = counts.get(done.task % n, 0) + 1
        assert len(counts) == n
        assert n / sum(1 / count for count in counts.values()) >= tasks / n - 1e-9
        # It would not have been reached without the last result, whoever that was from.
        inverse = sum(1 / count for count in counts.values())
        without = [inverse - 1 / c + 1 / (c - 1) if c > 1 else math.inf for c in counts.values()]
        assert any(n / less < tasks / n for less in without)
        for applied in update.contributions:
            part = applied.results[0].task % n
            assert applied.weight == pytest.approx(1.0 / counts[part])
        samples = World().samples
        assert update.order.divisor == pytest.approx(n * samples)


def test_mindflayer_cuts_off_where_times_have_a_heavy_tail_and_divides_by_expected_successes() -> None:
    heavy = [SimulatedWorker(name=f"w{i}", task_s=Law("lognormal", (0.0, 2.0))) for i in range(4)]
    result = simulate("mindflayer", heavy, 200, tasks=12)
    plain = simulate("uniform", heavy, 200, tasks=12)
    assert np.mean(result.round_s[50:]) < 0.5 * np.mean(plain.round_s[50:])
    cut = [update for update in result.model.updates[50:] if len(update.tasks()) < 12]
    assert cut
    samples = World().samples
    for update in cut:
        assert update.order.divisor != update.order.samples
        # Successes in the mean, not those that came: between none and all of the trials.
        assert 0 < update.order.divisor / samples < 12


def test_mindflayer_cuts_nothing_off_where_it_would_not_pay() -> None:
    light = [SimulatedWorker(name=f"w{i}", task_s=Law("shifted-exp", (1.0 + i,))) for i in range(4)]
    result = simulate("mindflayer", light, 60, tasks=12)
    assert result.wasted_s == 0.0
    assert all(len(update.tasks()) == 12 for update in result.model.updates)


def test_adaptive_k_sync_waits_for_its_first_k() -> None:
    """Scalars are 0 on the virtual clock: the signs never turn, so K stays."""
    result = simulate("adaptive-k-sync", exponential([1.0] * 4), 30, tasks=4, k_start=2)
    assert all(len(update.tasks()) == 2 for update in result.model.updates)
    assert math.isfinite(result.seconds)
