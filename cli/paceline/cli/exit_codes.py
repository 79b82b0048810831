"""Exit codes that are not an error's own (those stand in `paceline.errors`)."""

from __future__ import annotations

from paceline.errors import RunFailedError

INTERRUPTED = 130

OF_OUTCOME = {"done": 0, "failed": RunFailedError.exit_code, "interrupted": INTERRUPTED}
"""By `coordination.effects.Outcome`."""
