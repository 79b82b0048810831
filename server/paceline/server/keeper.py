"""Keeps the best version that was measured, by one metric of evaluate(). Works on the evaluation's thread."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import structlog

from paceline.errors import CheckpointError, RunFailedError
from paceline.flat import FlatModel
from paceline.server.best import Best, read_best, save_best
from paceline.weights import saved_tensors


class BestKeeper:
    """Holds each measured version against the best so far.

    Args:
        run_dir: where best.safetensors lies; one that a life before left counts.
        metric: of evaluate().
        more: whether more is better.
        required: evaluate must give it; else versions without it are passed over.
    """

    def __init__(self, run_dir: Path, metric: str, *, more: bool, required: bool) -> None:
        self._run_dir = run_dir
        self._metric = metric
        self._required = required
        self._sign = 1.0 if more else -1.0
        self._log = structlog.get_logger()
        self._best = -math.inf
        try:
            before = read_best(run_dir)
        except CheckpointError as error:
            self._log.error("best-unreadable", error=str(error))
        else:
            if before is not None and before.metric == metric:
                self._best = self._sign * before.value

    def consider(self, version: int, metrics: Mapping[str, float], measured: FlatModel) -> None:
        """Keep a version if it is better than all before; what cannot be written is logged, and tried with the next.

        Raises:
            RunFailedError: the evaluation gave no metric of the name.
        """
        if self._metric not in metrics and self._required:
            known = ", ".join(sorted(metrics)) or "nothing"
            raise RunFailedError(f"best names metric {self._metric!r}, but the evaluation gave {known}")
        value = float(metrics.get(self._metric, math.nan))
        if not self._sign * value > self._best:
            return  # a NaN is never better
        best = Best(version=version, metric=self._metric, value=value, fingerprint=measured.fingerprint())
        try:
            save_best(self._run_dir, best, saved_tensors(measured))
        except CheckpointError as error:
            self._log.error("best-failed", version=version, error=str(error))
        else:
            self._best = self._sign * value
