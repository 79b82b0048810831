"""A job whose versions and contributions are a few chunks long."""

from __future__ import annotations

from torch import nn

from tests.jobs import Tiny


class Medium(Tiny):
    """2.6 MB: three chunks of one MiB, the last one short."""

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(99, 6000), nn.Linear(6000, 10))


class MediumFrozen(Tiny):
    """The same size with the first layer frozen: 2.4 MB of constants."""

    def model(self) -> nn.Module:
        frozen = nn.Linear(99, 6000)
        frozen.requires_grad_(False)
        return nn.Sequential(frozen, nn.Linear(6000, 10))
