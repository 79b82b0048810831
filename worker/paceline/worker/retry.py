"""Says how long to wait before the next attempt to reach a server. Pure but for the jitter's generator."""

from __future__ import annotations

import math
import random

_FIRST_S = 0.05
# A supervisor has a killed server back after some seconds: the pause then is much of what its workers lose.
_HASTY_UNTIL_S = 15.0
_HASTY_CEILING_S = 0.5
_PATIENT_AFTER_S = 60.0
_EAGER_CEILING_S = 2.0
_CEILING_S = 15.0


def ceiling_s(elapsed_s: float) -> float:
    """Give the longest pause between attempts: 0.5 s for 15 s, 2 s in the first minute, 15 s from 7.5 minutes on."""
    return _HASTY_CEILING_S if elapsed_s < _HASTY_UNTIL_S else limit_s(elapsed_s)


def limit_s(elapsed_s: float) -> float:
    """Give the time that one attempt may take: 2 s in the first minute, then growing to 15 s at 7.5 minutes."""
    if elapsed_s < _PATIENT_AFTER_S:
        return _EAGER_CEILING_S
    return min(_CEILING_S, elapsed_s * _EAGER_CEILING_S / _PATIENT_AFTER_S)


def retry_delay_s(attempt: int, elapsed_s: float, chance: float) -> float:
    """Give the pause before an attempt.

    It doubles from 50 ms, so that a session cut for a moment is back before its worker is taken for lost; and it is
    drawn from the upper half, so that the workers of a restarted server do not all come at once.

    Args:
        attempt: 0 for the first one after a failure.
        elapsed_s: since the server was last heard.
        chance: in [0, 1).
    """
    grown_s = _FIRST_S * 2.0 ** min(attempt, 30)
    return min(grown_s, ceiling_s(elapsed_s)) * (0.5 + 0.5 * chance)


class Retry:
    """One row of attempts.

    Args:
        patience_s: after this time without a word from the server there is no further attempt.
    """

    endless = math.inf

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._since_s: float | None = None
        self._attempt = 0
        self._chance = random.Random()

    def reset(self) -> None:
        """The server was heard."""
        self._since_s = None
        self._attempt = 0

    def elapsed_s(self, now_s: float) -> float:
        """Give the time since the row began, which it does at the first question."""
        if self._since_s is None:
            self._since_s = now_s
        return now_s - self._since_s

    def exhausted(self, now_s: float) -> bool:
        """Tell whether to give up."""
        return self.elapsed_s(now_s) >= self._patience_s

    def next_delay_s(self, now_s: float, spent_s: float = 0.0) -> float:
        """Give the pause before the next attempt, and count it.

        Args:
            spent_s: what the last attempt took: attempts, not their ends, are so far apart. After the first one it is
                the session that took long.
        """
        delay_s = retry_delay_s(self._attempt, self.elapsed_s(now_s), self._chance.random())
        if self._attempt:
            delay_s = max(_FIRST_S, delay_s - spent_s)
        self._attempt += 1
        return delay_s
