"""What travels from a worker to the server: sums over tasks. Nothing here knows that they are gradients."""

from __future__ import annotations

import torch

from paceline.flat import TORCH_DTYPE, ByteImage, all_finite
from paceline.layout import ITEM_BYTES, ContributionLayout, Rule


class ContributionBuffer:
    """A contribution's image and its segments as tensors.

    Attributes:
        layout: where the segments lie.
        image: the bytes, see ByteImage for devices.
        segments: one flat tensor per segment of the layout.
        lowest_task: lowest task id summed in it, None while it is empty. Whoever fills the bytes from outside sets it.
    """

    def __init__(self, layout: ContributionLayout, device: torch.device | str = "cpu") -> None:
        self.layout = layout
        self.image = ByteImage(layout.nbytes, torch.device(device))
        self.segments = tuple(self.image.view(s.offset_bytes, s.numel, s.dtype) for s in layout.segments)
        self.lowest_task: int | None = None

    @property
    def nbytes(self) -> int:
        """Length of the image."""
        return self.image.nbytes

    @property
    def host_view(self) -> memoryview:
        """The bytes on the host, writable."""
        return self.image.host_view

    def zero_(self) -> None:
        """Make it the empty contribution."""
        self.image.data.zero_()
        self.lowest_task = None

    def add_(self, other: ContributionBuffer) -> None:
        """Add another contribution of the same layout: sums added, the rest from the one with the lower task id."""
        if other.lowest_task is None:
            return
        lower = self.lowest_task is None or other.lowest_task < self.lowest_task
        for segment, mine, theirs in zip(self.layout.segments, self.segments, other.segments, strict=True):
            if segment.rule is Rule.SUM:
                mine.add_(theirs)
            elif lower:
                mine.copy_(theirs)
        if lower:
            self.lowest_task = other.lowest_task

    def is_finite(self, start: int = 0, stop: int | None = None) -> bool:
        """Tell whether the sums on the host hold neither NaN nor infinity in bytes [start, stop).

        A number that crosses an end is checked with the range it ends in, so ranges in a row check every number once.

        Complexity: see flat.all_finite.
        """
        stop = self.nbytes if stop is None else stop
        for segment in self.layout.segments:
            if segment.rule is not Rule.SUM:
                continue
            item = ITEM_BYTES[segment.dtype]
            first = max(start // item * item, segment.offset_bytes)
            last = min(stop // item * item, segment.offset_bytes + segment.nbytes)
            if first < last and not all_finite(self.image.host[first:last].view(TORCH_DTYPE[segment.dtype])):
                return False
        return True
