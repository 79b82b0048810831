"""Numbers about updates that policies ask for: see `coordination.plan.SCALARS`. No threads, no I/O.

All are float64 sums in a fixed order, taken piece by piece so that no copy of the model in float64 is ever made. What
a policy does not ask for costs neither time nor memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from paceline.contribution import ContributionBuffer
from paceline.flat import FlatModel
from paceline.layout import Role

_PIECE_NUMEL = 1 << 17


class UpdateScalars:
    """Looks at a round's contributions, at its sum and at the parameters before and after.

    Args:
        flat: the model.
    """

    def __init__(self, flat: FlatModel) -> None:
        self._flat = flat
        self._before: list[torch.Tensor] = []
        self._marked: list[torch.Tensor] = []
        self._squares = 0.0
        self._contributions = 0

    def contribution(self, buffer: ContributionBuffer) -> None:
        """Look at a contribution of the round, before it is added."""
        self._squares += sum(_dot(part, part) for part in self._gradients(buffer))
        self._contributions += 1

    def mark(self) -> None:
        """Measure distances from the present parameters."""
        self._marked = [tensor.clone() for tensor in self._parameters()]

    def of_sum(self, names: Sequence[str], total: ContributionBuffer, divisor: float, samples: int) -> dict[str, float]:
        """Give the scalars of a round's sum, which the update will use up.

        Args:
            names: those that are asked for.
            divisor: of the averaged gradient.
            samples: in the sum.
        """
        found: dict[str, float] = {}
        parts = list(self._gradients(total))
        if "squared-norm" in names or "variance" in names:
            squared_norm = sum(_dot(part, part) for part in parts) / divisor**2
            found = {"squared-norm": squared_norm, "variance": self._variance(squared_norm, samples)}
            found = {name: value for name, value in found.items() if name in names}
        if "inner-product" in names:
            found["inner-product"] = sum(map(_dot, parts, self._before)) / divisor if self._before else 0.0
            self._before = [(part / divisor).float() for part in parts]
        self.forget()
        return found

    def forget(self) -> None:
        """Forget the contributions of a round."""
        self._squares, self._contributions = 0.0, 0

    def of_parameters(self, names: Sequence[str]) -> dict[str, float]:
        """Give the scalars of the new parameters."""
        if "distance" not in names:
            return {}
        if not self._marked:
            self.mark()
        return {"distance": sum(map(_squared_distance, self._parameters(), self._marked))}

    def state_dict(self) -> dict[str, list[torch.Tensor]]:
        """Give what later updates are measured against; the tensors are its own, not copies."""
        return {"before": self._before, "marked": self._marked}

    def load_state_dict(self, state: Mapping[str, list[torch.Tensor]]) -> None:
        """Go on from a saved state."""
        self._before, self._marked = (
            [tensor.to(self._flat.device) for tensor in state[name]] for name in ("before", "marked")
        )

    def _variance(self, squared_norm: float, samples: int) -> float:
        """Estimate E|g_i - E g|^2 from k contributions of about as many samples each."""
        k = self._contributions
        if k < 2:
            return 0.0
        of_each = samples / k
        return max(0.0, (self._squares / of_each**2 - k * squared_norm) / (k - 1))

    def _gradients(self, buffer: ContributionBuffer) -> Iterator[torch.Tensor]:
        for segment, summed in zip(buffer.layout.segments, buffer.segments, strict=True):
            if self._flat.layout.regions[segment.region].role is Role.TRAINABLE:
                yield summed

    def _parameters(self) -> Iterator[torch.Tensor]:
        for region, tensor in zip(self._flat.layout.regions, self._flat.regions, strict=True):
            if region.role is Role.TRAINABLE:
                yield tensor


def _dot(first: torch.Tensor, second: torch.Tensor) -> float:
    return sum(float(torch.dot(a, b)) for a, b in _pieces(first, second))


def _squared_distance(first: torch.Tensor, second: torch.Tensor) -> float:
    return sum(float((a - b).square().sum()) for a, b in _pieces(first, second))


def _pieces(first: torch.Tensor, second: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for start in range(0, first.numel(), _PIECE_NUMEL):
        end = start + _PIECE_NUMEL
        yield first[start:end].double(), second[start:end].double()
