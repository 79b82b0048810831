"""Says where every tensor lies in the two byte images that travel: a state, and a contribution to its update. No torch.

A state image is one run of bytes: for each role, in the order of Role, and each dtype in order of first appearance, a
region with the tensors of that role and dtype. Each tensor begins at a multiple of 64 bytes and gaps are zero, so that
vector code treats it alike wherever it lies (other alignments may round differently). A version is the image without
the constants, which travel once.

A contribution image is a row of segments, each summed or taken from the lowest task. That is all that transport,
staging and addition know of it: here it happens to be gradients, buffers times samples, and counters.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Literal

ALIGNMENT_BYTES = 64

Sums = Literal["fast", "exact"]

ITEM_BYTES = {
    "float64": 8,
    "float32": 4,
    "bfloat16": 2,
    "float16": 2,
    "complex128": 16,
    "complex64": 8,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint64": 8,
    "uint32": 4,
    "uint16": 2,
    "uint8": 1,
    "bool": 1,
}


class Role(enum.IntEnum):
    """What becomes of a tensor in a round; the order is that of the image."""

    TRAINABLE = 0
    """Parameters with a gradient: stepped by the optimizer."""
    AVERAGED = 1
    """Float buffers: averaged over the round's tasks, by samples."""
    COPIED = 2
    """Integer and other buffers: those of the round's lowest task."""
    CONSTANT = 3
    """Frozen parameters and constant buffers: travel once, never change."""


@dataclass(frozen=True, slots=True)
class TensorSlot:
    """One tensor of a state: its name, shape and dtype, and where it begins in the image."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    offset_bytes: int
    numel: int


@dataclass(frozen=True, slots=True)
class Region:
    """A run of tensors of one role and dtype; ``numel`` counts the gaps too."""

    role: Role
    dtype: str
    offset_bytes: int
    numel: int
    slots: tuple[TensorSlot, ...]

    @property
    def nbytes(self) -> int:
        """Length in the image; a multiple of 64."""
        return self.numel * ITEM_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class StateLayout:
    """All regions of a state image, in order. Equal layouts mean interchangeable bytes."""

    regions: tuple[Region, ...]

    @property
    def nbytes(self) -> int:
        """Length of the whole image, constants included."""
        return self.regions[-1].offset_bytes + self.regions[-1].nbytes

    @property
    def version_nbytes(self) -> int:
        """Length of the image's first part, that a new version changes."""
        return next((region.offset_bytes for region in self.regions if region.role is Role.CONSTANT), self.nbytes)

    def slots(self) -> tuple[tuple[Role, TensorSlot], ...]:
        """Give all tensors with their roles, in the order of the image."""
        return tuple((region.role, slot) for region in self.regions for slot in region.slots)


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What a layout needs to know of a tensor."""

    role: Role
    name: str
    shape: tuple[int, ...]
    dtype: str


def lay_out(tensors: list[TensorSpec]) -> StateLayout:
    """Place tensors, given in the module's order, in an image.

    Raises:
        KeyError: for a dtype that cannot travel (see ITEM_BYTES).
    """
    regions = []
    offset = 0
    for role in Role:
        mine = [tensor for tensor in tensors if tensor.role is role]
        for dtype in dict.fromkeys(tensor.dtype for tensor in mine):
            region = _region(role, dtype, offset, [tensor for tensor in mine if tensor.dtype == dtype])
            regions.append(region)
            offset += region.nbytes
    return StateLayout(tuple(regions))


def _region(role: Role, dtype: str, offset_bytes: int, tensors: list[TensorSpec]) -> Region:
    item = ITEM_BYTES[dtype]
    slots = []
    end = 0
    for tensor in tensors:
        numel = 1
        for size in tensor.shape:
            numel *= size
        slots.append(TensorSlot(tensor.name, tensor.shape, dtype, offset_bytes + end, numel))
        end += -(-numel * item // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
    return Region(role, dtype, offset_bytes, end // item, tuple(slots))


class Rule(enum.IntEnum):
    """How two contributions make one."""

    SUM = 0
    LOWEST = 1
    """That of the contribution with the lowest task id."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One run of equal numbers in a contribution image; ``region`` is the state's region it belongs to, by index."""

    name: str
    dtype: str
    numel: int
    rule: Rule
    offset_bytes: int
    region: int

    @property
    def nbytes(self) -> int:
        """Length in the image; a multiple of 64."""
        return self.numel * ITEM_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class ContributionLayout:
    """All segments of a contribution image, in order."""

    segments: tuple[Segment, ...]

    @property
    def nbytes(self) -> int:
        """Length of the image."""
        return self.segments[-1].offset_bytes + self.segments[-1].nbytes


def contribution_layout(state: StateLayout, sums: Sums) -> ContributionLayout:
    """Derive what a contribution to a state's update holds.

    Gradients are summed in float32 ("fast"; float64 for float64 parameters) or in float64 ("exact"). Buffers times
    samples are always summed in float64: they are small, and a float32 buffer that never changes so stays as it is to
    the bit.
    """
    segments: list[Segment] = []
    offset = 0
    for index, region in enumerate(state.regions):
        if region.role is Role.CONSTANT:
            continue
        rule = Rule.LOWEST if region.role is Role.COPIED else Rule.SUM
        dtype = region.dtype if rule is Rule.LOWEST else _accumulator(region, sums)
        name = f"{region.role.name.lower()}.{region.dtype}"
        segments.append(Segment(name, dtype, region.numel, rule, offset, index))
        offset += segments[-1].nbytes
    return ContributionLayout(tuple(segments))


def _accumulator(region: Region, sums: Sums) -> str:
    wide = sums == "exact" or region.dtype == "float64" or region.role is Role.AVERAGED
    return "float64" if wide else "float32"
