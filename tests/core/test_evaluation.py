from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from paceline.errors import RunFailedError
from paceline.evaluation import evaluate
from tests.jobs import DigitsLike, Tiny


class Gives(Tiny):
    """Evaluates to what it was given."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def evaluate(self, model: nn.Module) -> Any:
        return self._value


def test_metrics_come_as_floats() -> None:
    given = {"accuracy": torch.tensor(0.5), "count": 3, "loss": math.nan}
    metrics = evaluate(Gives(given), nn.Linear(1, 1))
    assert metrics["accuracy"] == 0.5
    assert metrics["count"] == 3.0
    assert math.isnan(metrics["loss"])
    assert all(type(value) is float for value in metrics.values())


def test_the_model_is_in_eval_mode_without_gradients_and_left_as_found() -> None:
    seen = []

    class Seeing(DigitsLike):
        def evaluate(self, model: nn.Module) -> dict[str, float]:
            seen.append((model.training, torch.is_grad_enabled()))
            return super().evaluate(model)

    module = Seeing().model()
    module[1].eval()  # type: ignore[index]
    assert 0.0 <= evaluate(Seeing(), module)["accuracy"] <= 1.0
    assert seen == [(False, False)]
    assert module.training
    assert not module[1].training  # type: ignore[index]
    assert module[5].training  # type: ignore[index]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.97, "gave a float: expected a dict"),
        ({"a": "good"}, "gave 'a' as a str"),
        ({"a": torch.ones(2)}, "as a Tensor"),
    ],
)
def test_what_is_no_metric_is_refused(value: Any, words: str) -> None:
    with pytest.raises(RunFailedError, match=words):
        evaluate(Gives(value), nn.Linear(1, 1))


def test_what_evaluate_raises_is_told() -> None:
    class Raises(Tiny):
        def evaluate(self, model: nn.Module) -> dict[str, float]:
            raise IndexError("no test set")

    with pytest.raises(RunFailedError, match=r"evaluate\(\) raised IndexError: no test set"):
        evaluate(Raises(), nn.Linear(1, 1))


def test_a_job_without_evaluate_has_no_metrics() -> None:
    class Without(Tiny):
        def evaluate(self, model: nn.Module) -> dict[str, float]:
            return super(Tiny, self).evaluate(model)

    assert evaluate(Without(), nn.Linear(1, 1)) == {}
