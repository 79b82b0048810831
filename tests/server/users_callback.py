"""A callback as it stands in a user's file."""

import json

from paceline.callbacks import Callback, EndEvent, RunInfo


class Writes(Callback):
    """Writes what it heard beside the run."""

    def on_start(self, run: RunInfo) -> None:
        self._path = run.run_dir / "mine.json"
        self._heard = ["start"]

    def on_end(self, event: EndEvent) -> None:
        self._heard.append(f"end {event.outcome}")
        self._path.write_text(json.dumps(self._heard))
