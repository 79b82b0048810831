"""What the model thread does, called directly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from paceline.coordination.effects import ApplyUpdate
from paceline.coordination.events import Rejection
from paceline.coordination.ids import PushId
from paceline.layout import Role
from paceline.protos.framing import crc32c
from paceline.server.model import Image, ServerModel, UpdateFault
from paceline.server.preparation import Preparation, prepare
from paceline.settings import RunSettings


class Bench:
    """A model as the server keeps it."""

    def __init__(self, job: str = "tests/jobs.py:DigitsLike", inline_bytes: int = 1 << 20) -> None:
        self.prepared: Preparation = prepare(RunSettings(job=job, micro_batch=4))
        self.model = ServerModel(self.prepared.flat, self.prepared.updater, self.prepared.layout, inline_bytes)
        self.pushes = 0

    def payload(self, seed: int) -> bytes:
        """Make a contribution of random sums."""
        chance = np.random.default_rng(seed)
        parts = []
        for segment in self.prepared.layout.segments:
            numbers = chance.standard_normal(segment.numel)
            parts.append((numbers * 10 if segment.dtype == "int64" else numbers).astype(segment.dtype).tobytes())
        return b"".join(parts)

    def push(self, payload: bytes, lowest_task: int = 0, weight: float = 1.0) -> bool:
        """Stage, verify and add a contribution; says whether its stage became the sum."""
        self.pushes += 1
        push = PushId(self.pushes)
        assert self.model.write_whole(push, lowest_task, payload, crc32c(payload)) is None
        return self.model.add(push, weight)

    def sum(self) -> list[torch.Tensor]:
        """Give the sum's segments."""
        assert self.model._sum is not None
        return [segment.clone() for segment in self.model._sum.segments]

    def parts(self, payload: bytes) -> list[torch.Tensor]:
        """Read a payload's segments."""
        data = bytearray(payload)
        return [
            torch.frombuffer(data, dtype=getattr(torch, s.dtype), count=s.numel, offset=s.offset_bytes)
            for s in self.prepared.layout.segments
        ]


def order(version: int = 1, divisor: float = 8.0, scalars: Sequence[str] = ()) -> ApplyUpdate:
    return ApplyUpdate(version=version, samples=8, divisor=divisor, loss=1.0, tasks=2, scalars=tuple(scalars))


def test_the_first_stage_becomes_the_sum_and_others_are_added_and_used_again() -> None:
    bench = Bench()
    payloads = [bench.payload(seed) for seed in range(3)]
    assert [bench.push(payload) for payload in payloads] == [True, False, False]
    for got, *added in zip(bench.sum(), *map(bench.parts, payloads), strict=True):
        if got.dtype.is_floating_point:
            assert torch.equal(got, added[0] + added[1] + added[2])
    assert len(bench.model._free) == 1
    assert isinstance(bench.model.apply(order()), Image)
    assert len(bench.model._free) == 2
    # The next round's sum begins with what is pushed in it and nothing else.
    bench.push(payloads[1])
    assert all(torch.equal(a, b) for a, b in zip(bench.sum(), bench.parts(payloads[1]), strict=True))


def test_integer_buffers_are_those_of_the_lowest_task() -> None:
    bench = Bench()
    lowest = bench.payload(2)
    bench.push(bench.payload(1), lowest_task=7)
    bench.push(lowest, lowest_task=3)
    bench.push(bench.payload(3), lowest_task=5)
    copied = [
        index
        for index, segment in enumerate(bench.prepared.layout.segments)
        if bench.prepared.flat.layout.regions[segment.region].role is Role.COPIED
    ]
    assert copied
    for index in copied:
        assert torch.equal(bench.sum()[index], bench.parts(lowest)[index])


def test_a_weight_scales_gradients_and_leaves_buffers_alone() -> None:
    bench = Bench()
    payload = bench.payload(1)
    bench.push(payload, weight=0.5)
    regions = bench.prepared.flat.layout.regions
    segments = bench.prepared.layout.segments
    for segment, got, given in zip(segments, bench.sum(), bench.parts(payload), strict=True):
        factor = 0.5 if regions[segment.region].role is Role.TRAINABLE else 1
        assert torch.equal(got, given * factor)


@pytest.mark.parametrize("piece", [1000, 1001, 4096])
def test_pieces_are_put_in_their_places_whatever_their_length(piece: int) -> None:
    bench = Bench()
    payload, push = bench.payload(1), PushId(1)
    bench.model.open_stage(push, 0)
    for start in range(0, len(payload), piece):
        data = memoryview(payload)[start : start + piece]
        assert bench.model.write(push, start, data, crc32c(data)) is None
    bench.model.add(push, 1.0)
    assert all(torch.equal(a, b) for a, b in zip(bench.sum(), bench.parts(payload), strict=True))


@pytest.mark.parametrize("piece", [1000, 1001])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_none_is_found_also_across_pieces(piece: int, bad: float) -> None:
    bench = Bench()
    for place in (0, 249, 250, 251, 500):
        data = bytearray(bench.payload(1))
        data[4 * place : 4 * place + 4] = np.float32(bad).tobytes()
        push = PushId(place + 1)
        bench.model.open_stage(push, 0)
        faults = []
        for start in range(0, len(data), piece):
            part = memoryview(data)[start : start + piece]
            faults.append(bench.model.write(push, start, part, crc32c(part)))
        assert [fault[0] for fault in faults if fault] == [Rejection.NON_FINITE], place
        bench.model.discard(push)
    assert bench.model._sum is None
    assert len(bench.model._free) == 1


def test_after_a_wrong_checksum_nothing_is_added_and_the_stage_is_free() -> None:
    bench = Bench()
    fault = bench.model.write_whole(PushId(1), 0, bench.payload(1), 1)
    assert fault is not None
    assert fault[0] is Rejection.CHECKSUM
    assert (bench.model._sum, len(bench.model._free)) == (None, 1)
    assert bench.model.write(PushId(1), 0, b"late", 0) is None


def test_a_small_version_travels_as_its_bytes_and_a_large_one_does_not() -> None:
    small, large = Bench(inline_bytes=1 << 20), Bench(inline_bytes=64)
    for bench in (small, large):
        bench.push(bench.payload(1))
        image = bench.model.apply(order(version=5))
        assert isinstance(image, Image)
        assert image.version == 5
        expected = bytes(bench.prepared.flat.version_view) if bench is small else b""
        assert image.state == expected
        assert image.crc32c == crc32c(bytes(bench.prepared.flat.version_view))


def test_updates_that_cannot_be_made_say_why() -> None:
    bench = Bench()
    empty = bench.model.apply(order())
    assert isinstance(empty, UpdateFault)
    assert "without a contribution" in empty.message
    bench.push(bench.payload(1))
    fault = bench.model.apply(order(divisor=0.0))
    assert isinstance(fault, UpdateFault)
    assert "expected both positive" in fault.message


def test_scalars_come_with_the_version_that_they_are_about() -> None:
    bench = Bench()
    for version in (1, 2):
        bench.push(bench.payload(version))
        made = bench.model.apply(order(version, scalars=["distance", "inner-product"]))
        assert isinstance(made, Image)
        scalars = dict(made.scalars)
        assert scalars.keys() == {"distance", "inner-product"}
        # From the first version that was asked about, and with the gradient before.
        assert [value != 0.0 for value in (scalars["distance"], scalars["inner-product"])] == [version > 1] * 2


def test_memory_does_not_grow_from_round_to_round() -> None:
    bench = Bench()
    payload = bench.payload(1)
    for version in range(1, 6):
        for _ in range(4):
            bench.push(payload)
        bench.model.apply(order(version))
        assert len(bench.model._free) == 2
        assert not bench.model._stages
