"""Ends a run whose metric has not become better for so many evaluations: early stopping."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from paceline.errors import RunFailedError


class Patience:
    """Counts evaluations since the best one.

    Args:
        metric: of evaluate().
        more: whether more is better.
        evaluations: so many without a better one are too many.
    """

    def __init__(self, metric: str, *, more: bool, evaluations: int) -> None:
        self._metric = metric
        self._sign = 1.0 if more else -1.0
        self._evaluations = evaluations
        self._best = -math.inf
        self._best_version = 0
        self._waited = 0

    def measured(self, version: int, metrics: Mapping[str, float]) -> str:
        """Take a version's metrics in.

        Returns:
            Why the run should end; empty: it should not.

        Raises:
            RunFailedError: the evaluation gave no metric of the name.
        """
        if self._metric not in metrics:
            known = ", ".join(sorted(metrics)) or "nothing"
            raise RunFailedError(f"patience waits for metric {self._metric!r}, but the evaluation gave {known}")
        value = self._sign * metrics[self._metric]
        if value > self._best:  # a NaN is never better
            self._best, self._best_version, self._waited = value, version, 0
            return ""
        self._waited += 1
        if self._waited < self._evaluations:
            return ""
        best = f"{self._sign * self._best:g}, of round {self._best_version}" if self._best_version else "none"
        return f"{self._waited} evaluations without a better {self._metric} (the best: {best})"

    def state(self) -> dict[str, Any]:
        """Give what has been counted, for a checkpoint."""
        return {"best": self._best, "best_version": self._best_version, "waited": self._waited}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._best, self._best_version, self._waited = state["best"], state["best_version"], state["waited"]
