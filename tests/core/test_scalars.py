"""The numbers that policies ask for, against plain numpy on the same bytes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from paceline.contribution import ContributionBuffer
from paceline.flat import FlatModel, build_model
from paceline.layout import Role, Sums, contribution_layout
from paceline.scalars import UpdateScalars
from tests.jobs import DigitsLike


def contribution(flat: FlatModel, seed: int, sums: Sums = "fast") -> ContributionBuffer:
    buffer = ContributionBuffer(contribution_layout(flat.layout, sums))
    generator = torch.Generator().manual_seed(seed)
    for segment in buffer.segments:
        if segment.dtype.is_floating_point:
            segment.copy_(torch.randn(segment.numel(), generator=generator))
    return buffer


def gradient(flat: FlatModel, buffer: ContributionBuffer) -> NDArray[np.float64]:
    segments = zip(buffer.layout.segments, buffer.segments, strict=True)
    regions = flat.layout.regions
    return np.concatenate([t.double().numpy() for s, t in segments if regions[s.region].role is Role.TRAINABLE])


@pytest.mark.parametrize("sums", ["fast", "exact"])
def test_inner_product_is_with_the_averaged_gradient_before(sums: Sums) -> None:
    flat = build_model(DigitsLike(), 0)
    scalars, first, second = UpdateScalars(flat), contribution(flat, 1, sums), contribution(flat, 2, sums)
    assert scalars.of_sum(["inner-product"], first, 4.0, 4) == {"inner-product": 0.0}
    found = scalars.of_sum(["inner-product", "squared-norm"], second, 8.0, 8)
    mine, before = gradient(flat, second) / 8, gradient(flat, first) / 4
    assert found["inner-product"] == pytest.approx(mine @ before, rel=1e-6)
    assert found["squared-norm"] == pytest.approx(mine @ mine, rel=1e-12)


def test_variance_is_the_unbiased_one_of_the_contributions() -> None:
    flat = build_model(DigitsLike(), 0)
    scalars = UpdateScalars(flat)
    parts, total = [contribution(flat, seed) for seed in range(5)], contribution(flat, 0)
    for part in parts:
        scalars.contribution(part)
    for part in parts[1:]:
        part.lowest_task = 1
        total.add_(part)
    rows = np.stack([gradient(flat, part) for part in parts]) / 8
    expected = ((rows - rows.mean(axis=0)) ** 2).sum() / 4
    assert scalars.of_sum(["variance"], total, 40.0, 40)["variance"] == pytest.approx(expected, rel=1e-6)
    # A round of its own begins; a single contribution has none.
    scalars.contribution(parts[0])
    assert scalars.of_sum(["variance"], parts[0], 8.0, 8)["variance"] == 0.0


def test_distance_is_from_the_marked_parameters() -> None:
    flat = build_model(DigitsLike(), 0)
    scalars = UpdateScalars(flat)
    scalars.mark()
    count = 0
    for region, tensor in zip(flat.layout.regions, flat.regions, strict=True):
        if region.role is Role.TRAINABLE:
            tensor.add_(0.5)
            count += tensor.numel()
    assert scalars.of_parameters(["distance"])["distance"] == pytest.approx(0.25 * count, rel=1e-6)
    scalars.mark()
    assert scalars.of_parameters(["distance"]) == {"distance": 0.0}
    assert scalars.of_parameters(["variance"]) == {}
