"""A job whose loss raises."""

from __future__ import annotations

from typing import Any

from torch import nn

from tests.jobs import DigitsLike


class Fails(DigitsLike):
    def loss(self, model: nn.Module, batch: Any) -> Any:
        raise ValueError("raises everywhere")
