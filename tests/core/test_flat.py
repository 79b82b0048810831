from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from paceline.contribution import ContributionBuffer
from paceline.errors import UsageError
from paceline.flat import FlatModel, all_finite, build_model
from paceline.layout import Role, Rule, StateLayout, contribution_layout
from tests.jobs import Augmented, DigitsLike, DigitsLikeFloat64, TangledModel


def layout_of(flat: FlatModel) -> StateLayout:
    return flat.layout


def test_tensors_have_the_roles_they_deserve() -> None:
    roles = {slot.name: role for role, slot in FlatModel(TangledModel()).layout.slots()}
    assert roles["first.weight"] is Role.TRAINABLE
    assert "second.weight" not in roles, "tied parameters count once"
    assert roles["unused"] is Role.TRAINABLE
    assert roles["norm.running_var"] is Role.AVERAGED
    assert roles["scale"] is Role.AVERAGED
    assert roles["norm.num_batches_tracked"] is Role.COPIED
    assert roles["frozen.weight"] is Role.CONSTANT
    assert roles["mask"] is Role.CONSTANT, "no sum of infinities is finite"
    assert roles["table"] is Role.CONSTANT, "not persistent"


def test_every_tensor_begins_at_64_bytes() -> None:
    flat = FlatModel(TangledModel())
    for name, view in flat.named_views().items():
        assert view.data_ptr() % 64 == 0, name
    for parameter in flat.module.parameters():
        assert parameter.data_ptr() % 64 == 0


def test_parameters_and_buffers_are_views_and_keep_values_and_ties() -> None:
    module = TangledModel()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    parameter = module.first.weight
    flat = FlatModel(module)
    assert module.first.weight is parameter
    assert module.second.weight is parameter
    assert flat.named_views()["first.weight"].data_ptr() == parameter.data_ptr()
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name
    with torch.no_grad():
        parameter.fill_(2.0)
    assert (flat.named_views()["first.weight"] == 2.0).all()


def test_a_version_travels_as_bytes() -> None:
    source, target = build_model(Augmented(), 1), build_model(Augmented(), 2)
    assert source.layout == target.layout
    target.version_view[:100] = source.version_view[:100]
    target.version_view[100:] = source.version_view[100:]
    target.constants_view[:] = source.constants_view
    for name, value in source.module.state_dict().items():
        assert torch.equal(target.module.state_dict()[name], value), name
    assert target.fingerprint() == source.fingerprint()


def test_a_version_holds_all_that_changes_and_no_more() -> None:
    flat = FlatModel(TangledModel())
    constants = sum(r.nbytes for r in flat.layout.regions if r.role is Role.CONSTANT)
    assert flat.layout.version_nbytes == flat.layout.nbytes - constants == len(flat.version_view)
    assert len(flat.constants_view) == constants
    assert FlatModel(nn.Linear(2, 2)).layout.version_nbytes == FlatModel(nn.Linear(2, 2)).layout.nbytes


def test_copy_from_takes_over_everything() -> None:
    source, target = build_model(DigitsLike(), 1), build_model(DigitsLike(), 2)
    assert source.fingerprint() != target.fingerprint()
    target.copy_from(source)
    assert source.fingerprint() == target.fingerprint()


def test_the_fingerprint_sees_a_single_bit() -> None:
    flat = build_model(DigitsLike(), 1)
    before = flat.fingerprint()
    flat.named_views()["0.bias"][0] += 1e-6
    assert flat.fingerprint() != before
    assert len(before) == 12


def test_a_float64_model_keeps_its_dtype() -> None:
    flat = build_model(DigitsLikeFloat64(), 1)
    assert {region.dtype for region in flat.layout.regions} == {"float64", "int64"}


def test_mixed_dtypes_get_regions_of_their_own() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3).double(), nn.Linear(3, 3).to(torch.bfloat16))
    flat = FlatModel(module)
    assert [region.dtype for region in flat.layout.regions] == ["float32", "float64", "bfloat16"]
    fast, exact = contribution_layout(flat.layout, "fast"), contribution_layout(flat.layout, "exact")
    assert [segment.dtype for segment in fast.segments] == ["float32", "float64", "float32"]
    assert [segment.dtype for segment in exact.segments] == ["float64", "float64", "float64"]


def test_a_dtype_that_cannot_travel_is_refused() -> None:
    module = nn.Linear(2, 2)
    module.register_buffer("odd", torch.zeros(2).to(torch.float8_e4m3fn))
    with pytest.raises(UsageError, match=r"odd of the model is a .*float8_e4m3fn tensor"):
        FlatModel(module)


def test_non_finite_tensors_are_named() -> None:
    flat = build_model(DigitsLike(), 1)
    assert flat.non_finite() == []
    flat.named_views()["1.running_var"][2] = math.inf
    flat.named_views()["6.weight"][0, 0] = math.nan
    assert flat.non_finite() == ["6.weight", "1.running_var"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_finiteness_is_judged_by_the_numbers_not_their_sum(dtype: torch.dtype) -> None:
    huge = torch.full((1000,), torch.finfo(dtype).max, dtype=dtype)
    assert all_finite(huge)
    for bad in (math.inf, -math.inf, math.nan):
        huge[500] = bad
        assert not all_finite(huge)
    opposite = torch.tensor([math.inf, -math.inf], dtype=dtype)
    assert not all_finite(opposite)


def contributions(n: int) -> list[ContributionBuffer]:
    layout = contribution_layout(FlatModel(TangledModel()).layout, "exact")
    made = []
    for number in range(n):
        buffer = ContributionBuffer(layout)
        for segment in buffer.segments:
            segment.fill_(number + 1)
        buffer.lowest_task = 10 - number
        made.append(buffer)
    return made


def test_contributions_add_sums_and_take_counters_from_the_lowest_task() -> None:
    first, second, third = contributions(3)
    first.add_(third)
    first.add_(second)
    assert first.lowest_task == 8
    for segment, numbers in zip(first.layout.segments, first.segments, strict=True):
        assert (numbers == (6 if segment.rule is Rule.SUM else 3)).all(), segment.name


def test_an_empty_contribution_changes_nothing_and_takes_everything() -> None:
    first, second = contributions(2)
    before = bytes(second.host_view)
    first.zero_()
    second.add_(first)
    assert bytes(second.host_view) == before
    first.add_(second)
    assert bytes(first.host_view) == before
    assert first.lowest_task == 9


def test_contribution_segments_are_float64_for_buffers_even_in_fast_sums() -> None:
    layout = contribution_layout(FlatModel(TangledModel()).layout, "fast")
    assert [(s.name, s.dtype, s.rule) for s in layout.segments] == [
        ("trainable.float32", "float32", Rule.SUM),
        ("averaged.float32", "float64", Rule.SUM),
        ("copied.int64", "int64", Rule.LOWEST),
    ]
    assert layout.nbytes == sum(segment.nbytes for segment in layout.segments)


def _poison_sum(buffer: ContributionBuffer) -> int:
    buffer.segments[1][3] = math.nan
    return buffer.layout.segments[1].offset_bytes + 3 * 8


def _poison_last_gradient(buffer: ContributionBuffer) -> int:
    buffer.segments[0][-1] = math.inf
    return buffer.layout.segments[0].offset_bytes + buffer.layout.segments[0].nbytes - 8


@pytest.mark.parametrize("poison", [_poison_sum, _poison_last_gradient])
@pytest.mark.parametrize("chunk", [1, 7, 64, 1000, 1 << 20])
def test_chunks_in_a_row_find_every_non_finite_number(poison: Callable[[ContributionBuffer], int], chunk: int) -> None:
    buffer = contributions(1)[0]
    assert buffer.is_finite()
    at = poison(buffer)
    start = max(0, at - 2 * chunk - 16)
    assert buffer.is_finite(0, at)
    ranges = [(s, min(s + chunk, buffer.nbytes)) for s in range(start, min(at + 2 * chunk + 16, buffer.nbytes), chunk)]
    assert sum(not buffer.is_finite(*each) for each in ranges) == 1


def test_counters_are_not_taken_for_floats() -> None:
    buffer = contributions(1)[0]
    buffer.segments[2].fill_(-1)  # as a float64: NaN
    assert buffer.is_finite()
