"""Sends a run to Weights & Biases; WANDB_PROJECT, WANDB_MODE and its other variables hold as everywhere."""

from __future__ import annotations

import os
from typing import Any

from paceline.callbacks import Callback, EndEvent, EvaluationEvent, RoundEvent, StartEvent, run_folder
from paceline.extras import needed
from paceline.loggers.scalars import of_round, plain

ID_FILE = "wandb-id"


class WandbLogger(Callback):
    """One run there for each run directory: a resumed run goes on with it.

    Args:
        project: None: WANDB_PROJECT, else paceline.
        mode: online, offline or disabled; None: WANDB_MODE, else online.

    Raises:
        UsageError: wandb is not installed.
    """

    def __init__(self, project: str | None = None, mode: str | None = None) -> None:
        self._wandb = needed("wandb", "wandb", "the wandb logger")
        self._project, self._mode = project, mode
        self._run: Any = None

    def on_start(self, event: StartEvent) -> None:
        """See Callback."""
        kept = run_folder(event, ID_FILE)
        known = kept.read_text(encoding="utf-8").strip() if kept.is_file() else None
        self._run = self._wandb.init(
            project=self._project or os.environ.get("WANDB_PROJECT") or "paceline",
            mode=self._mode,
            dir=event.run_dir,
            config=plain(event.settings),
            id=known,
            resume="allow",
        )
        kept.write_text(f"{self._run.id}\n", encoding="utf-8")
        # An evaluation comes after later rounds; with wandb's own counter it could not be told of an earlier one.
        self._run.define_metric("round")
        self._run.define_metric("*", step_metric="round")

    def on_round(self, event: RoundEvent) -> None:
        """See Callback."""
        self._run.log({"round": event.round, **of_round(event)})

    def on_evaluation(self, event: EvaluationEvent) -> None:
        """See Callback."""
        self._run.log({"round": event.round, **{f"eval/{name}": value for name, value in event.metrics.items()}})

    def on_end(self, event: EndEvent) -> None:
        """See Callback."""
        self._run.finish(exit_code=1 if event.outcome == "failed" else 0)
