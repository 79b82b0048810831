"""A script that holds its job and trains it, as a user writes one."""

from __future__ import annotations

import sys

from paceline.api import Callback, RoundEvent, train
from tests.jobs import Tiny


class Mine(Tiny):
    """A job of the script itself."""


class Prints(Callback):
    """Tells of rounds."""

    def on_round(self, event: RoundEvent) -> None:
        print(f"round {event.round}")


if __name__ == "__main__":
    result = train(Mine, workers=2, rounds=3, seed=4, run_dir=sys.argv[1], callbacks=[Prints()], progress=False)
    print(result.outcome, len(result.history["loss"]), result.summary["fingerprint"])
