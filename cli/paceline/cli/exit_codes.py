"""Exit codes that are not an error's own (those stand in `paceline.errors`)."""

from __future__ import annotations

from signal import SIGINT

from paceline.errors import RunFailedError, TryAgainError

INTERRUPTED = 130


def of_run(outcome: str, *, try_again: bool = False, signal: int = 0) -> int:
    """Say what a server exits with.

    Args:
        outcome: of `coordination.effects.Outcome`.
        try_again: it was stopped for want of workers.
        signal: that ended it, 0 for none. SIGTERM is how a supervisor asks for a clean stop: no error.
    """
    if outcome == "failed":
        return RunFailedError.exit_code
    if try_again:
        return TryAgainError.exit_code
    return INTERRUPTED if outcome == "stopped" and signal == SIGINT else 0
