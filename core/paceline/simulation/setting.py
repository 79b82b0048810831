"""What is simulated: workers with their laws, tasks per round, and what the policies are told."""

from __future__ import annotations

from dataclasses import dataclass

from paceline.allocation import constant_for
from paceline.allocation.uniform import check_tasks
from paceline.simulation.shapes import Laws


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One experiment, whatever the policy.

    Attributes:
        tasks: B, tasks per round.
        constants: of the confidence radius: "paper", "as-run" or a number.
        seed: of the workers' times and, apart from them, of the policy's draws.

    Raises:
        UsageError: tasks or constants that cannot be.
    """

    laws: Laws
    tasks: int
    constants: str = "paper"
    seed: int = 0

    def __post_init__(self) -> None:
        check_tasks(self.tasks)
        constant_for("ata", self.constants)

    @property
    def alpha_s(self) -> float:
        """Bound the norm of a task's seconds, for `ata`, as the paper's experiments do: twice the largest mean."""
        return 2.0 * float(self.laws.means_s.max())
