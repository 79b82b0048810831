"""Writes TensorBoard's event files."""

from __future__ import annotations

from pathlib import Path

from paceline.callbacks import Callback, EndEvent, EvaluationEvent, RoundEvent, StartEvent, run_folder
from paceline.extras import needed
from paceline.loggers.scalars import of_round, plain


class TensorBoardLogger(Callback):
    """Scalars by round: `train/...`, `worker/NAME/...` and `eval/METRIC`; the settings as text.

    Args:
        folder: None: `tensorboard` in the run's directory.

    Raises:
        UsageError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path | str | None = None) -> None:
        needed("tensorboard", "tensorboard", "the tensorboard logger")
        self._writer_of = needed("torch.utils.tensorboard", "tensorboard", "the tensorboard logger").SummaryWriter
        self._folder = folder

    def on_start(self, event: StartEvent) -> None:
        """See Callback."""
        folder = self._folder or run_folder(event, "tensorboard")
        # What an earlier life wrote of rounds that are made again is hidden.
        purge = event.round + 1 if event.round else None
        self._writer = self._writer_of(log_dir=str(folder), purge_step=purge)
        rows = "\n".join(f"| {name} | {value} |" for name, value in plain(event.settings).items())
        self._writer.add_text("settings", f"| setting | value |\n|---|---|\n{rows}", event.round)

    def on_round(self, event: RoundEvent) -> None:
        """See Callback."""
        for name, value in of_round(event).items():
            self._writer.add_scalar(name, value, event.round)

    def on_evaluation(self, event: EvaluationEvent) -> None:
        """See Callback."""
        for name, value in event.metrics.items():
            self._writer.add_scalar(f"eval/{name}", value, event.round)
        self._writer.flush()

    def on_end(self, event: EndEvent) -> None:
        """See Callback."""
        self._writer.close()
