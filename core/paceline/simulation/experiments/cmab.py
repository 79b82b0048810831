"""The bandit that employs r of n workers, against oracle, baselines and K-sync: the preset `cmab`.

Linear regression, r growing from 1 to b in equal stages. Each repetition draws the workers' means anew; its policies
see the same task times, and all repetitions share one loss curve (see `regression`).

Source: Egger et al. (2025), section 6. The sizes are not known from the paper's text (see specs): n = 50, b = 20,
means uniform on {0.1, ..., 0.9}, 1000 rounds a stage, m = 2000, d = 100, step 1e-4 are ours.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from paceline.allocation import max_moments, quadrature
from paceline.coordination.policies.schedule import GrowingCount, Switches, parse_switch_at
from paceline.errors import UsageError
from paceline.nearest import did_you_mean
from paceline.simulation.compiled.employed import EMPLOYING, K_FAMILY, Block, EmployedRun, optima_s, superarm_means_s
from paceline.simulation.experiments.listener import Listener, Nobody
from paceline.simulation.experiments.regression import loss_curve, regression
from paceline.simulation.experiments.results import PolicyResult, Trajectory, checkpoints, rows
from paceline.simulation.shapes import Laws, Shape, check_means, scaled

POLICIES = (*EMPLOYING, *K_FAMILY)
"""All that the preset can compare."""

_EXPONENTIAL = Shape("exp")
_BLOCK = 1000
_MEANS_S = np.arange(1, 10) / 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CmabSettings:
    """One experiment.

    Attributes:
        workers: n.
        tasks: b, the largest number of workers employed; reached after equal stages of 1, 2, ... workers.
        rounds: in all stages together.
        seed: of all draws; 1 gives the workers that our reference numbers were taken with.
        means_s: of the workers; None: drawn anew for each repetition, uniform on {0.1, ..., 0.9}.
        law: of the task times, scaled to the means.
        policies: some of POLICIES, in the order of the table.

    Raises:
        UsageError: numbers that cannot be or contradict each other, an unknown policy.
    """

    workers: int = 50
    tasks: int = 20
    rounds: int = 20_000
    seed: int = 0
    repeats: int = 10
    means_s: tuple[float, ...] | None = None
    law: Shape = _EXPONENTIAL
    policies: tuple[str, ...] = POLICIES
    k_start: int = 1
    k_step: int = 1
    switch_at: str | None = None

    def __post_init__(self) -> None:
        for name in ("workers", "tasks", "rounds", "repeats"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}: expected at least 1")
        if self.seed < 0:
            raise UsageError(f"seed is {self.seed}: expected at least 0")
        if self.means_s is not None:
            check_means(self.means_s)
            if len(self.means_s) != self.workers:
                raise UsageError(f"means are {len(self.means_s)} for {self.workers} workers: expected one for each")
        if self.tasks > self.workers:
            raise UsageError(f"tasks are {self.tasks} of {self.workers} workers: expected no more than there are")
        for policy in self.policies:
            if policy not in POLICIES:
                hint = did_you_mean(policy, POLICIES)
                raise UsageError(f"policy is {policy!r}: preset cmab has {', '.join(POLICIES)}{hint}")
        _ = self.schedule  # Checks its numbers.
        if len(set(self.policies)) < len(self.policies):
            raise UsageError(f"policies are {', '.join(self.policies)}: expected each once")

    @property
    def schedule(self) -> GrowingCount:
        """One worker more after each of b equal stages; the last is shorter where b does not divide the rounds."""
        stages = Switches(every=-(-self.rounds // self.tasks))
        switch_at = stages if self.switch_at is None else parse_switch_at(self.switch_at)
        return GrowingCount(self.k_start, self.k_step, self.tasks, switch_at)

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """Give r of each round."""
        return np.array([self.schedule.at(number) for number in range(1, self.rounds + 1)], dtype=np.int64)

    def laws(self) -> list[Laws]:
        """Give the workers of each repetition."""
        if self.means_s is not None:
            return [scaled(self.law, self.means_s)] * self.repeats
        rng = np.random.default_rng(self.seed)
        return [scaled(self.law, rng.choice(_MEANS_S, self.workers).tolist()) for _ in range(self.repeats)]


@dataclass(frozen=True, slots=True, kw_only=True)
class CmabRun:
    """One policy in all repetitions that were completed; in a part of one where none was.

    Attributes:
        employments: tasks dispatched up to each checkpoint, used or not, the same in every repetition, shape (m,).
        repeats: one result each; regrets are expected maxima less the oracle's for exponential times, else the
            sampled ones less the oracle's on the same times; nan for K-sync.
    """

    policy: str
    employments: npt.NDArray[np.int64]
    repeats: tuple[PolicyResult, ...]

    @property
    def times_s(self) -> npt.NDArray[np.float64]:
        """Give the total time of each repetition."""
        return np.array([result.trajectory.time_s[-1] for result in self.repeats])

    @property
    def mean(self) -> PolicyResult:
        """Average over the repetitions; tasks per worker and seconds are sums, as each has workers of its own."""
        first, every = self.repeats[0], [result.trajectory for result in self.repeats]
        regrets = [result.average_regret for result in self.repeats if result.average_regret is not None]
        return replace(
            first,
            mean_round_s=float(np.mean([result.mean_round_s for result in self.repeats])),
            mean_round_work_s=float(np.mean([result.mean_round_work_s for result in self.repeats])),
            average_regret=float(np.mean(regrets)) if regrets else None,
            tasks_per_worker=tuple(np.sum([result.tasks_per_worker for result in self.repeats], axis=0).tolist()),
            seconds=sum(result.seconds for result in self.repeats),
            trajectory=Trajectory(
                rounds=first.trajectory.rounds,
                time_s=np.mean([one.time_s for one in every], axis=0),
                work_s=np.mean([one.work_s for one in every], axis=0),
                regret_s=np.mean([one.regret_s for one in every], axis=0),
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CmabResult:
    """What the experiment gave.

    Attributes:
        rounds: checkpoints, shape (m,).
        gaps: F(w) - min F at the checkpoints, the same for all policies, shape (m,); nan where interrupted.
        bound_s: theorem 2's bound of the LCB's regret, mean over the repetitions, shape (m,); nan unless exponential.
        runs: of the policies that were begun, in the settings' order.
        interrupted: it is not all.
    """

    settings: CmabSettings
    rounds: npt.NDArray[np.int64]
    gaps: npt.NDArray[np.float64]
    bound_s: npt.NDArray[np.float64]
    runs: tuple[CmabRun, ...]
    interrupted: bool

    def rows(self) -> list[dict[str, Any]]:
        """Make one JSON row per policy: those of every experiment, then time, its deviation, employments and gap.

        The ratios to greedy are those to k-batch-sync, the same rule; `oracle_ratio` is the time to the oracle's. None
        where that policy was not asked for.
        """
        means = {run.policy: run.mean for run in self.runs}
        oracle = next(
            (
                run.times_s.mean()
                for run in self.runs
                if run.policy == "cmab-oracle" and means[run.policy].rounds == self.settings.rounds
            ),
            None,
        )
        table = rows(list(means.values()), means.get("k-batch-sync"))
        for row, run in zip(table, self.runs, strict=True):
            times_s = run.times_s
            row["time_s"] = float(times_s.mean())
            row["time_sd_s"] = float(times_s.std(ddof=1)) if times_s.size > 1 else None
            whole = row["rounds"] == self.settings.rounds
            row["oracle_ratio"] = float(times_s.mean() / oracle) if whole and oracle is not None else None
            row["employments"] = int(run.employments[-1])
            gap = self.gaps[run.employments.size - 1]
            row["gap"] = None if np.isnan(gap) else float(gap)
        return table


def run_cmab(settings: CmabSettings, listener: Listener | None = None) -> CmabResult:
    """Run the experiment until it is done or the listener has stopped it; what was computed is kept."""
    listener = listener if listener is not None else Nobody()
    at = checkpoints(settings.rounds)
    problem = regression(settings.seed, settings.tasks)
    gaps = loss_curve(problem, settings.counts, at, seed=settings.seed, listener=listener)
    results: dict[str, list[PolicyResult]] = {policy: [] for policy in settings.policies}
    employments: dict[str, npt.NDArray[np.int64]] = {}
    everybody = settings.laws()
    for seed, laws in enumerate(everybody, start=settings.seed):
        for policy in settings.policies:
            done = _Account(settings, policy, laws, seed).run(at, listener)
            # A run that was cut short stands for its policy where there is no whole one.
            if done is not None and (not results[policy] or done[0].rounds == settings.rounds):
                results[policy].append(done[0])
                employments[policy] = done[1]
    return CmabResult(
        settings=settings,
        rounds=at,
        gaps=gaps,
        bound_s=np.mean([_bound_s(settings, laws, at) for laws in everybody], axis=0),
        runs=tuple(
            CmabRun(policy=policy, employments=employments[policy], repeats=tuple(every))
            for policy, every in results.items()
            if every
        ),
        interrupted=listener.stopped(),
    )


class _Account:
    """One run of one policy, summed up block by block."""

    def __init__(self, settings: CmabSettings, policy: str, laws: Laws, seed: int) -> None:
        self._settings = settings
        self._policy = policy
        self._workers = laws.workers
        self._run = EmployedRun(policy, laws, settings.schedule, seed)
        self._oracle = EmployedRun("cmab-oracle", laws, settings.schedule, seed)
        self._exponential = settings.law == _EXPONENTIAL
        if self._exponential:
            self._nodes = quadrature(laws.means_s)
            self._optimum_s = optima_s(laws.means_s, self._nodes, settings.tasks)

    def run(self, at: npt.NDArray[np.int64], listener: Listener) -> tuple[PolicyResult, npt.NDArray[np.int64]] | None:
        """Run to the end, or to the last checkpoint before the listener stops it; None if there was none.

        Gives the result and the employments.
        """
        began_s = time.perf_counter()
        totals, noted = np.zeros(4), [np.empty((4, 0))]
        done = 0
        while done < self._settings.rounds and not listener.stopped():
            block = self._run.advance(min(_BLOCK, self._settings.rounds - done))
            sums = totals[:, None] + np.cumsum(self._columns(block), axis=1)
            noted.append(sums[:, at[(at > done) & (at <= self._run.rounds)] - done - 1])
            totals, done = sums[:, -1], self._run.rounds
            listener.went_on(self._policy, done)
        time_s, work_s, regret_s, employments = np.concatenate(noted, axis=1)
        if not time_s.size:
            return None
        at = at[: time_s.size]
        done = int(at[-1])
        result = PolicyResult(
            policy=self._policy,
            workers=self._workers,
            tasks=self._settings.tasks,
            rounds=done,
            mean_round_s=float(time_s[-1]) / done,
            mean_round_work_s=float(work_s[-1]) / done,
            average_regret=None if np.isnan(regret_s[-1]) else float(regret_s[-1]) / done,
            tasks_per_worker=tuple(self._run.learned.tasks_done.tolist()),
            seconds=time.perf_counter() - began_s,
            trajectory=Trajectory(rounds=at, time_s=time_s, work_s=work_s, regret_s=regret_s),
        )
        return result, employments.astype(np.int64)

    def _columns(self, block: Block) -> npt.NDArray[np.float64]:
        """Give each round's time, worker seconds, regret and employments, shape (4, m)."""
        if self._policy in K_FAMILY:
            regret_s = np.full(block.counts.size, np.nan)
        elif self._exponential:
            regret_s = superarm_means_s(block.employed, block.counts, self._nodes) - self._optimum_s[block.counts]
        else:
            regret_s = block.round_s - self._oracle.advance(block.counts.size).round_s
        return np.stack([block.round_s, block.work_s, regret_s, self._run.employments(block).astype(np.float64)])


def regret_bound_s(
    means_s: npt.NDArray[np.float64], counts: npt.NDArray[np.int64], numbers: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Bound the regret of the LCB policy with exponential times, after each of some rounds.

    R(j) <= max_{u <= r} gap_u n (48 ln j / min{(d / M)^2, d / M} + 1 + r pi^2 / 3): gap_u the expected maximum of the u
    slowest workers less that of the u fastest, M the largest mean, d the smallest positive difference between a mean
    and the k-th smallest, k <= b. Zero where all means are equal.

    Args:
        counts: r at those rounds, shape (m,).
        numbers: j, shape (m,).
    Source: Egger et al. (2025), theorem 2. The constants are derived (for f = 2 ln j), its shape is the paper's.
    """
    most = int(counts.max())
    ascending = np.sort(means_s)
    differences = ascending[None, :] - ascending[:most, None]
    positive = differences[differences > 0.0]
    if not positive.size:
        return np.zeros(len(numbers))
    share = float(positive.min() / ascending[-1])
    gaps = [max_moments(ascending[-u:]).mean_s - max_moments(ascending[:u]).mean_s for u in range(1, most + 1)]
    worst_s = np.maximum.accumulate(np.array([0.0, *gaps]))[counts]
    pulls = 48.0 * np.log(numbers) / min(share**2, share) + 1.0 + counts * (np.pi**2 / 3.0)
    return np.asarray(worst_s * len(means_s) * pulls)


def _bound_s(settings: CmabSettings, laws: Laws, at: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    if settings.law != _EXPONENTIAL:
        return np.full(len(at), np.nan)
    return regret_bound_s(laws.means_s, settings.counts[at - 1], at)
