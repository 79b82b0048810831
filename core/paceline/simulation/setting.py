"""What is simulated: workers with their laws, tasks per round, and what the policies are told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paceline.allocation import constant_for
from paceline.allocation.uniform import check_tasks
from paceline.coordination.policies import PolicyOptions, employment_schedule
from paceline.errors import UsageError
from paceline.simulation.shapes import Laws


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One experiment, whatever the policy.

    Attributes:
        tasks: B, tasks per round.
        constants: of the confidence radius: "paper", "as-run" or a number.
        seed: of the workers' times and, apart from them, of the policy's draws.
        k_start, k_step, switch_at, staleness: see policies.PolicyOptions.

    Raises:
        UsageError: numbers that cannot be.
    """

    laws: Laws
    tasks: int
    constants: str = "paper"
    seed: int = 0
    k_start: int | None = None
    k_step: int = 1
    switch_at: str | None = None
    staleness: int | None = None

    def __post_init__(self) -> None:
        check_tasks(self.tasks)
        constant_for("ata", self.constants)
        employment_schedule(self.options())
        if self.staleness is not None and self.staleness < 1:
            raise UsageError(f"staleness is {self.staleness}: expected at least 1, which keeps only what is current")

    def options(self, names: Sequence[str] = (), parts: int = 0) -> PolicyOptions:
        """Say what a policy is told; of the workers' means, by name, that they are known.

        Args:
            names: of the workers; empty: no policy that looks at means is meant.
            parts: of the data.
        """
        means_s = self.laws.means_s
        return PolicyOptions(
            tasks=self.tasks,
            constants=self.constants,
            alpha_s=self.alpha_s,
            means_s=dict(zip(names, means_s.tolist(), strict=True)) if names else None,
            mean_max_s=float(means_s.max()),
            k_start=self.k_start,
            k_step=self.k_step,
            switch_at=self.switch_at,
            staleness=self.staleness,
            parts=parts,
        )

    @property
    def alpha_s(self) -> float:
        """Bound the norm of a task's seconds, for `ata`, as the paper's experiments do: twice the largest mean."""
        return 2.0 * float(self.laws.means_s.max())
