"""Number formats of forward and backward, and the loss scale without which float16 loses small gradients. No I/O.

Micikevicius et al., "Mixed Precision Training" (ICLR 2018), section 3.2: the loss is multiplied by a factor before the
backward and the gradient divided by it after; a gradient that is not finite makes no update, and the factor smaller.
Its rule and numbers are those of torch.amp.GradScaler. Ours are the bounds: at 1 there is nothing left to win, and a
gradient that is not finite is an error again. All factors are powers of two, so that only what float16 rounds differs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Literal

import torch

from paceline.errors import UsageError
from paceline.flat import FlatModel

Precision = Literal["fp32", "bf16", "fp16"]

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}

FIRST_SCALE = 2.0**16
LARGEST_SCALE = 2.0**24
GROWS_AFTER = 2000
"""Updates in a row after which the scale is doubled."""


def autocast(precision: Precision, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Compute what is inside in this precision where torch thinks it safe."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=_AUTOCAST[precision])


def check_precision(precision: Precision, flat: FlatModel) -> None:
    """Check that a model can be trained so.

    Raises:
        UsageError: its own gradients would be float16, where no scale could be taken out of them.
    """
    if precision != "fp16":
        return
    for _, region, _ in flat.trainable():
        if region.dtype == "float16":
            name = region.slots[0].name
            raise UsageError(f"{name} of the model is float16 with precision fp16: expected float32, autocast does it")


class LossScale:
    """The factor of a run's losses, on the server.

    Attributes:
        value: for tasks at the present version.
    """

    def __init__(self, precision: Precision) -> None:
        self.value = FIRST_SCALE if precision == "fp16" else 1.0
        self._grows = precision == "fp16"
        self._made = 0

    @property
    def bears_overflow(self) -> bool:
        """Tell whether a sum that is not finite may be the scale's doing."""
        return self.value > 1.0

    def made(self) -> None:
        """Hear of an update that was made."""
        if not self._grows:
            return
        self._made += 1
        if self._made == GROWS_AFTER:
            self._made = 0
            self.value = min(2 * self.value, LARGEST_SCALE)

    def skipped(self) -> None:
        """Hear of a sum that was not finite."""
        self._made = 0
        self.value = max(self.value / 2, 1.0)

    def state_dict(self) -> dict[str, Any]:
        """Give what later versions depend on."""
        return {"value": self.value, "made": self._made}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        self.value, self._made = float(state["value"]), int(state["made"])
