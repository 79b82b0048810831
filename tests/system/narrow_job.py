"""A job whose tasks fit into the memory of one worker in two slices, and of the others in eight."""

import sys
from typing import Any

from torch import nn

from paceline.job import Batch
from tests.jobs import Tiny


class Narrow(Tiny):
    """Takes so many samples at once as its process has memory for; a replay has enough."""

    def loss(self, model: nn.Module, batch: Batch) -> Any:
        fits = {"w1": 8, "w2": 2}.get(name(), 16)
        if len(batch[0]) > fits:
            raise MemoryError(f"no room for more than {fits}")
        return super().loss(model, batch)


def name() -> str:
    """Say which worker this process is: the first to ask takes the first name."""
    frame: Any = sys._getframe()
    while frame is not None:
        worker = frame.f_locals.get("self")
        if type(worker).__name__ == "Worker":
            return str(worker._name)
        frame = frame.f_back
    return ""
