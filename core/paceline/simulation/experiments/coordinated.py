"""A policy on the real coordinator and a virtual clock: for every policy, at some 20,000 events a second."""

from __future__ import annotations

import math
import time
from functools import partial

import numpy as np

from paceline.allocation import allocate
from paceline.coordination import Machine, MachineSettings
from paceline.coordination.effects import Effect, RoundRecord
from paceline.coordination.events import Event, StopRequested, UpdateApplied
from paceline.coordination.policies import make_policy
from paceline.simulation.compiled.streams import policy_generator, starting_streams, task_s
from paceline.simulation.driver import Simulation, World
from paceline.simulation.experiments.listener import Listener, Nobody
from paceline.simulation.experiments.quadratic import Descent, Quadratic
from paceline.simulation.experiments.results import PolicyResult, Trajectory, checkpoints
from paceline.simulation.result import SimulationResult
from paceline.simulation.setting import Setting
from paceline.simulation.surroundings import SimulatedWorker

# The papers know no lost workers: no timer may ever run out.
_FOREVER_S = 1e300

# Policies that use every task that they hand out, as planned: their allocation has a proxy loss.
_WITH_REGRET = frozenset({"ata", "ata-empirical", "uniform", "fixed"})


class _Watched:
    """The coordinator, with a listener who hears of every round."""

    def __init__(self, machine: Machine, policy: str, listener: Listener) -> None:
        self._machine = machine
        self._policy = policy
        self._listener = listener

    @property
    def deadline(self) -> float | None:
        """See Steppable."""
        return self._machine.deadline

    def step(self, event: Event, now: float) -> list[Effect]:
        """See Steppable."""
        effects = self._machine.step(event, now)
        if isinstance(event, UpdateApplied):
            self._listener.went_on(self._policy, event.version)
            if self._listener.stopped():
                effects += self._machine.step(StopRequested("interrupted", grace_s=0.0), now)
        return effects


def run_on_coordinator(
    policy: str, setting: Setting, rounds: int, listener: Listener | None = None
) -> SimulationResult:
    """Run a policy on the streams of the compiled path; a cancel takes effect at once, as in the papers' tables.

    Raises:
        UsageError: a policy that cannot do with this setting.
    """
    laws, n = setting.laws, setting.laws.workers
    names = worker_names(n)
    streams = starting_streams(n, setting.seed)
    workers = [
        SimulatedWorker(name=name, task_s=partial(task_s, laws.kinds, laws.parameters, streams, i))
        for i, name in enumerate(names)
    ]
    parts = n if policy == "malenia" else 0
    settings = MachineSettings(
        tasks=setting.tasks,
        rounds=rounds,
        min_workers=n,
        parts=parts,
        silent_after_s=_FOREVER_S,
        progress_s=_FOREVER_S,
    )
    machine = Machine(settings, make_policy(policy, setting.options(names, parts), rng=policy_generator(setting.seed)))
    world = World(scalars=Descent(Quadratic(tasks=setting.tasks), setting.seed).scalars)
    return Simulation(_Watched(machine, policy, listener or Nobody()), workers, world=world).run()


def simulate_on_coordinator(
    policy: str, setting: Setting, rounds: int, listener: Listener | None = None
) -> PolicyResult | None:
    """Run a policy on the coordinator and sum it up; None where it was stopped before its first round was over."""
    began_s = time.perf_counter()
    records = run_on_coordinator(policy, setting, rounds, listener).rounds
    if not records:
        return None
    place = {name: i for i, name in enumerate(worker_names(setting.laws.workers))}
    used = np.zeros(len(place), dtype=np.int64)
    for record in records:
        for worker in record.workers:
            used[place[worker.name]] += worker.used
    trajectory = _trajectory(policy, setting, records, place)
    regret_s = float(trajectory.regret_s[-1])
    return PolicyResult(
        policy=policy,
        workers=len(place),
        tasks=setting.tasks,
        rounds=len(records),
        mean_round_s=float(trajectory.time_s[-1]) / len(records),
        mean_round_work_s=float(trajectory.work_s[-1]) / len(records),
        average_regret=None if math.isnan(regret_s) else regret_s / len(records),
        tasks_per_worker=tuple(used.tolist()),
        seconds=time.perf_counter() - began_s,
        trajectory=trajectory,
    )


def worker_names(n: int) -> tuple[str, ...]:
    """Name n workers."""
    return tuple(f"w{number}" for number in range(1, n + 1))


def _trajectory(policy: str, setting: Setting, records: list[RoundRecord], place: dict[str, int]) -> Trajectory:
    means_s = setting.laws.means_s
    best = allocate(means_s, setting.tasks, np.random.default_rng(0))
    best_s = float((best * means_s).max())
    work_s = [math.fsum(w.used_s + w.wasted_s for w in record.workers) for record in records]
    regret_s = np.full(len(records), np.nan)
    if policy in _WITH_REGRET:
        losses = [max(count * means_s[place[name]] for name, count in record.allocation) for record in records]
        regret_s = np.cumsum(np.array(losses) - best_s)
    at = checkpoints(len(records))
    return Trajectory(
        rounds=at,
        time_s=np.cumsum([record.seconds for record in records])[at - 1],
        work_s=np.cumsum(work_s)[at - 1],
        regret_s=regret_s[at - 1],
    )
