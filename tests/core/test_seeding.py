from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from paceline.seeding import seed_everything


def draws() -> tuple[float, ...]:
    return (torch.rand(1).item(), torch.randn(1).item(), np.random.rand(), np.random.randn(), random.random())


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**63 - 1])
def test_the_same_seed_gives_the_same_draws(seed: int) -> None:
    seed_everything(seed)
    first = draws()
    seed_everything(seed)
    assert draws() == first


def test_torch_draws_as_under_manual_seed() -> None:
    torch.randn(3)
    seed_everything(77)
    ours = torch.randn(5)
    torch.manual_seed(77)
    assert torch.equal(ours, torch.randn(5))


def test_other_seeds_give_other_draws_from_each_generator() -> None:
    seed_everything(1)
    first = draws()
    seed_everything(2)
    assert all(a != b for a, b in zip(first, draws(), strict=True))
