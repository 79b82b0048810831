"""The server's model, its optimizer, the sum of the round and the stages of pushes. Touched by the model thread alone.

A push is staged whole, verified, and only then added: never a half-received sum. The first verified stage of a round
becomes the sum by changing places, so nothing is filled with zeros and one addition less is made.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from paceline.contribution import ContributionBuffer
from paceline.coordination.effects import ApplyUpdate
from paceline.coordination.events import Rejection
from paceline.coordination.ids import PushId
from paceline.errors import RunFailedError
from paceline.flat import FlatModel
from paceline.layout import ContributionLayout, Role
from paceline.protos.framing import crc32c
from paceline.scalars import UpdateScalars
from paceline.tracebacks import users_traceback
from paceline.update import Updater
from paceline.weights import save_model, saved_tensors

Fault = tuple[Rejection, str]


@dataclass(frozen=True, slots=True)
class Image:
    """A version as it travels inside a lease.

    Attributes:
        state: its bytes; empty where they are too many for that.
        crc32c: their checksum, whether they are here or not.
        scalars: of the update that made it, those that were asked for.
        loss_scale: for tasks at this version, see precision.LossScale.
        skipped: its parameters are those of the version before: the sum was not finite.
    """

    version: int
    state: bytes
    crc32c: int
    scalars: tuple[tuple[str, float], ...] = ()
    loss_scale: float = 1.0
    skipped: bool = False


@dataclass(frozen=True, slots=True)
class UpdateFault:
    """An update that could not be made: one line, and the user's traceback where his code raised."""

    message: str
    traceback_text: str = ""


@dataclass(frozen=True, slots=True)
class ModelSnapshot:
    """A version and all that later updates depend on; nothing in it is shared.

    Attributes:
        weights: parameters and persistent buffers, on the CPU.
        state: of optimizer, scheduler, job and scalars: nested, its tensors on the CPU.
    """

    version: int
    weights: Mapping[str, torch.Tensor]
    state: Mapping[str, Any]


class ServerModel:
    """What the model thread works on.

    Args:
        flat: the model, stepped in place.
        updater: its optimizer and scheduler.
        layout: of contributions to it.
        inline_bytes: versions up to this size are given as an Image.
    """

    def __init__(self, flat: FlatModel, updater: Updater, layout: ContributionLayout, inline_bytes: int) -> None:
        self._flat = flat
        self._updater = updater
        self._layout = layout
        self._inline_bytes = inline_bytes
        regions = flat.layout.regions
        gradients = [segment for segment in layout.segments if regions[segment.region].role is Role.TRAINABLE]
        self._gradients_end = max((segment.offset_bytes + segment.nbytes for segment in gradients), default=0)
        self._version = 0
        self._scalars = UpdateScalars(flat)
        self._stages: dict[PushId, ContributionBuffer] = {}
        self._free: list[ContributionBuffer] = []
        self._sum: ContributionBuffer | None = None

    # ---- stages ------------------------------------------------------------------------------------------------------

    def open_stage(self, push: PushId, lowest_task: int) -> None:
        """Take a buffer for a push; the caller keeps account of how many there are."""
        buffer = self._free.pop() if self._free else ContributionBuffer(self._layout, self._flat.device)
        buffer.lowest_task = lowest_task
        self._stages[push] = buffer

    def write(self, push: PushId, offset: int, data: bytes | memoryview, expected_crc32c: int) -> Fault | None:
        """Verify a piece of a push and put it in its place; a push without a stage (given up meanwhile) is ignored.

        Args:
            offset: of its first byte in the image; the piece ends inside the image.
        """
        buffer = self._stages.get(push)
        if buffer is None:
            return None
        if crc32c(data) != expected_crc32c:
            return Rejection.CHECKSUM, f"bytes {offset} to {offset + len(data)} do not match their checksum"
        end = offset + len(data)
        buffer.host_view[offset:end] = data
        # Gradients that are not finite may be the loss scale's doing; buffers never are.
        checked_from = self._gradients_end if self._updater.loss_scale.bears_overflow else 0
        if not buffer.is_finite(max(offset, checked_from), end):
            return Rejection.NON_FINITE, f"the sum is not finite between bytes {offset} and {end}"
        return None

    def write_whole(
        self, push: PushId, lowest_task: int, data: bytes | memoryview, expected_crc32c: int
    ) -> Fault | None:
        """Stage and verify a contribution that came in one piece; after a fault it has no stage."""
        self.open_stage(push, lowest_task)
        fault = self.write(push, 0, data, expected_crc32c)
        if fault:
            self.discard(push)
        return fault

    def discard(self, push: PushId) -> None:
        """Free the stage of a push, if it has one."""
        buffer = self._stages.pop(push, None)
        if buffer is not None:
            self._free.append(buffer)

    # ---- the sum and the update --------------------------------------------------------------------------------------

    def add(self, push: PushId, weight: float, measured: bool = False) -> bool:
        """Add a verified stage to the sum; the variance of those that are measured may be asked for.

        Returns:
            True if the stage became the sum: its buffer is free only after the next update.
        """
        buffer = self._stages.pop(push)
        buffer.image.from_host()
        if measured:
            self._scalars.contribution(buffer)
        if weight != 1.0:
            self._scale(buffer, weight)
        if self._sum is None:
            self._sum = buffer
            return True
        self._sum.add_(buffer)
        self._free.append(buffer)
        return False

    def apply(self, order: ApplyUpdate) -> Image | UpdateFault:
        """Step the model by the sum; afterwards the host's bytes are the new version's."""
        total, self._sum = self._sum, None
        if total is None:
            return UpdateFault(f"version {order.version} was ordered without a contribution")
        if order.mark:
            self._scalars.mark()
        skipped = self._updater.overflows(total)
        scalars: dict[str, float] = {}
        try:
            if skipped:
                self._scalars.forget()
                self._updater.skip(total, order.samples)
            else:
                if order.scalars:
                    scalars = self._scalars.of_sum(order.scalars, total, order.divisor, order.samples)
                self._updater.apply(total, order.divisor, order.samples, order.loss)
        except RunFailedError as error:
            return UpdateFault(str(error), users_traceback(error.__cause__) if error.__cause__ else "")
        self._free.append(total)
        names = self._flat.non_finite()
        if names:
            return UpdateFault(f"the update to version {order.version} made {', '.join(names[:3])} not finite")
        self._version = order.version
        if not skipped:
            scalars |= self._scalars.of_parameters(order.scalars)
        return self.image(tuple(scalars.items()), skipped=skipped)

    def image(self, scalars: tuple[tuple[str, float], ...] = (), *, skipped: bool = False) -> Image:
        """Bring the present version to the host and give it as it travels."""
        nbytes = self._flat.layout.version_nbytes
        self._flat.image.to_host(0, nbytes)
        state = bytes(self._flat.version_view) if nbytes <= self._inline_bytes else b""
        checksum = crc32c(state or self._flat.version_view)
        return Image(self._version, state, checksum, scalars, self._updater.loss_scale.value, skipped)

    @property
    def loss_scale(self) -> float:
        """For tasks at the present version."""
        return self._updater.loss_scale.value

    @property
    def follows_metric(self) -> bool:
        """Tell whether `measured` changes anything."""
        return self._updater.follows_metric

    def measured(self, metrics: Mapping[str, float]) -> UpdateFault | None:
        """Let the learning rate follow the metrics of the present version."""
        try:
            self._updater.measured(metrics)
        except RunFailedError as error:
            return UpdateFault(str(error), users_traceback(error.__cause__) if error.__cause__ else "")
        return None

    def copy_to(self, other: FlatModel) -> int:
        """Copy the present version, constants included, into another model; says which version that is."""
        other.copy_from(self._flat)
        return self._version

    def save(self, path: Path) -> str:
        """Write the weights as a safetensors file and give the model's fingerprint."""
        save_model(self._flat, path)
        return self._flat.fingerprint()

    def snapshot(self) -> ModelSnapshot:
        """Copy all that later updates depend on, to the host."""
        state = {"updater": self._updater.state_dict(), "scalars": self._scalars.state_dict()}
        return ModelSnapshot(
            version=self._version,
            weights={name: _copied(view) for name, view in saved_tensors(self._flat).items()},
            state={name: _copied(value) for name, value in state.items()},
        )

    def restore(self, version: int, state: Mapping[str, Any]) -> None:
        """Go on from a snapshot whose weights have been loaded into the model."""
        self._version = version
        self._updater.load_state_dict(state["updater"])
        self._scalars.load_state_dict(state["scalars"])

    def _scale(self, buffer: ContributionBuffer, weight: float) -> None:
        # Buffers are averaged by samples whatever a contribution weighs.
        for segment, summed in zip(self._layout.segments, buffer.segments, strict=True):
            if self._flat.layout.regions[segment.region].role is Role.TRAINABLE:
                summed.mul_(weight)


def _copied(value: Any) -> Any:
    """Copy nested state, tensors to the CPU; what is no container is shared."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        copied = copy.copy(value)
        for key, item in value.items():
            copied[key] = _copied(item)
        return copied
    if type(value) in (list, tuple):
        return type(value)(_copied(item) for item in value)
    return value
