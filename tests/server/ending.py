"""Jobs that bring a run to its end in one way or another."""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import nn

from tests.jobs import Tiny


class Counting(Tiny):
    """Its metric counts updates: each moves the first bias by the mean of what was pushed, from zero on."""

    # Cleared by a test to hold evaluations up.
    may_evaluate = threading.Event()
    may_evaluate.set()

    def model(self) -> nn.Module:
        model = nn.Linear(99, 10)
        nn.init.zeros_(model.bias)
        return model

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=1.0)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        assert isinstance(model, nn.Linear)
        assert self.may_evaluate.wait(20)
        return {"steps": model.bias[0].item()}


class FailsToEvaluate(Tiny):
    """Raises when it is measured."""

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        raise RuntimeError("no test data")


class ExitsWhenMeasured(Tiny):
    """Ends its process, as a script without a main guard does."""

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        raise SystemExit("bye")


class FailsToBeSaved(Tiny):
    """Its model cannot give its state."""

    def model(self) -> nn.Module:
        return WithoutState(99, 10)


class WithoutState(nn.Linear):
    """Raises when it is asked for its state."""

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("no state")


class FailsToStep(Tiny):
    """Raises in its own hook at the update."""

    def before_step(self, model: nn.Module) -> None:
        raise RuntimeError("cannot clip")


class Explodes(Tiny):
    """Makes its parameters infinite at the first update."""

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=float("inf"))


class HangsWhenSaved(Tiny):
    """Takes a minute to be saved."""

    def model(self) -> nn.Module:
        return SlowToSave(99, 10)


class SlowToSave(nn.Linear):
    """Gives its state after a minute."""

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        threading.Event().wait(60)
        return super().state_dict(*args, **kwargs)
