"""A run of one policy on the compiled path, block by block."""

from __future__ import annotations

import numpy as np

from paceline.allocation import allocate, constant_for, log_term
from paceline.errors import UsageError
from paceline.simulation.compiled.choices import Floats, Ints, new_choice
from paceline.simulation.compiled.kernels import Workers, play_by_score, play_fixed, play_greedy, play_uniform
from paceline.simulation.compiled.streams import policy_generator, starting_streams
from paceline.simulation.setting import Setting

COMPILED = ("ata-empirical", "ata", "greedy", "uniform", "fixed")
"""Policies that have a compiled path."""

# Worker visits of one block: about 0.1 s, so that an interrupt is heard and progress seen.
_BLOCK_VISITS = 1 << 24
_BLOCK_ROUNDS = 1 << 14


class CompiledRun:
    """One policy's rounds.

    Args:
        policy: one of COMPILED.

    Attributes:
        round: rounds played.
        sums: run time, worker seconds, proxy regret and bad rounds so far (see kernels.TIME ff.).
        has_regret: the last two of them mean something: the policy decides who does how much.
        best_s: the least proxy loss.

    Raises:
        UsageError: a policy that has no compiled path.
    """

    def __init__(self, policy: str, setting: Setting) -> None:
        if policy not in COMPILED:
            raise UsageError(f"policy {policy!r} has no compiled path: expected one of {', '.join(COMPILED)}")
        laws, n = setting.laws, setting.laws.workers
        self.round = 0
        self.sums: Floats = np.zeros(4)
        self.has_regret = policy != "greedy"
        self._policy, self._tasks = policy, setting.tasks
        self._rng = policy_generator(setting.seed)
        self._choice = new_choice(n, setting.tasks)
        self._workers = Workers(
            kinds=laws.kinds,
            parameters=laws.parameters,
            infima_s=laws.infima_s,
            true_means_s=laws.means_s,
            streams=starting_streams(n, setting.seed),
            counted=np.ones(n),
            done=np.zeros(n, dtype=np.int64),
            busy_s=np.zeros(n),
            means_s=np.zeros(n),
        )
        best = allocate(laws.means_s, setting.tasks, self._rng)
        self.best_s = float((best * laws.means_s).max())
        self._factor = self._radius_factor(setting)
        self._active = self._decide(best) if policy == "fixed" else 0

    def _radius_factor(self, setting: Setting) -> float:
        if self._policy not in ("ata", "ata-empirical"):
            return 0.0
        constant = constant_for(self._policy, setting.constants)
        return constant * setting.alpha_s if self._policy == "ata" else constant

    def _decide(self, allocation: Ints) -> int:
        who = np.flatnonzero(allocation)
        self._choice.who[: who.size] = who
        self._choice.counts[: who.size] = allocation[who]
        return who.size

    @property
    def tasks_done(self) -> Ints:
        """Count each worker's tasks that were used, shape (n,)."""
        return self._workers.done.copy()

    @property
    def allocation(self) -> Ints:
        """Give the last round's tasks per worker, shape (n,); for greedy the results that were used."""
        tasks = np.zeros(self._workers.done.size, dtype=np.int64)
        tasks[self._choice.who[: self._active]] = self._choice.counts[: self._active]
        return tasks

    @property
    def block(self) -> int:
        """Tell how many rounds `advance` should be asked for at a time."""
        return max(1, min(_BLOCK_ROUNDS, _BLOCK_VISITS // (self._workers.done.size + self._tasks)))

    def advance(self, rounds: int) -> None:
        """Play that many rounds, at least 1."""
        workers, choice, tasks, best_s, sums = self._workers, self._choice, self._tasks, self.best_s, self.sums
        match self._policy:
            case "greedy":
                self._active = play_greedy(workers, choice, rounds, tasks, sums)
            case "uniform":
                self._active = play_uniform(workers, choice, self._rng, rounds, tasks, best_s, sums)
            case "fixed":
                self._active = play_fixed(workers, choice, self._active, rounds, best_s, sums)
            case _:
                logs = log_term(np.arange(self.round + 1, self.round + rounds + 1))
                empirical, factor = self._policy == "ata-empirical", self._factor
                self._active = play_by_score(
                    workers, choice, self._rng, logs, tasks, empirical, factor, best_s, sums
                )  # fmt: skip
        self.round += rounds

    def start_clock(self) -> None:
        """Forget the sums; what was learned and the number of the round stay (the paper's prior knowledge)."""
        self.sums[:] = 0.0
