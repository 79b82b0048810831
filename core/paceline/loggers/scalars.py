"""How loggers name what they write, the same everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from paceline.callbacks import RoundEvent


def of_round(event: RoundEvent) -> dict[str, float]:
    """Give a round's numbers by name."""
    shares = event.workers.values()
    scalars = {
        "train/loss": event.loss,
        "train/round_s": event.seconds,
        "train/samples": float(event.samples),
        "train/worker_s": sum(share.used_s + share.wasted_s for share in shares),
        "train/wasted_tasks": float(sum(share.wasted for share in shares)),
    }
    if event.seconds > 0:
        scalars["train/samples_per_s"] = event.samples / event.seconds
    scalars |= {f"train/{name}": value for name, value in event.means.items()}
    for name, share in event.workers.items():
        scalars[f"worker/{name}/tasks"] = float(share.used)
        scalars[f"worker/{name}/idle_s"] = share.idle_s
    return scalars


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Give the settings that say something: without those that are not set."""
    return {name: value for name, value in settings.items() if value is not None}
