"""A job whose versions and contributions take several chunks, without a large model's price."""

from __future__ import annotations

from torch import nn

from tests.jobs import Tiny


class Medium(Tiny):
    """1.1 million parameters: 4.4 MB."""

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(99, 10_000), nn.Linear(10_000, 10))
