"""Seeds the generators that user code draws from: torch, numpy and random, all three process-wide."""

from __future__ import annotations

import random

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed torch, numpy's global state and random, the same everywhere.

    Args:
        seed: in [0, 2^63). numpy's legacy seed has 32 bits and takes the low ones.

    Complexity: about 8 us. ``torch.manual_seed`` alone takes 140 us, since it looks for devices that are not there.

    Thread-safety: the generators belong to the whole process; whoever computes is the only one to draw.
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    random.seed(seed)
