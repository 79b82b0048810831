"""Who watches an experiment, and may end it."""

from __future__ import annotations

from typing import Protocol


class Listener(Protocol):
    """Hears how far an experiment is, a few times a second."""

    def went_on(self, policy: str, rounds: int) -> None:
        """So many rounds of this policy have been simulated in the present run of it."""
        ...

    def stopped(self) -> bool:
        """Tell whether to end now and keep what was computed."""
        ...


class Nobody:
    """A listener that neither looks nor stops."""

    def went_on(self, policy: str, rounds: int) -> None:
        """See Listener."""

    def stopped(self) -> bool:
        """See Listener."""
        return False
