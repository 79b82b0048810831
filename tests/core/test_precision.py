"""float16 with a loss scale, held against torch's own GradScaler."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from paceline.coordination.effects import ApplyUpdate
from paceline.coordination.ids import PushId
from paceline.errors import TaskError, UsageError
from paceline.flat import FlatModel, build_model
from paceline.gradients import ComputeSettings, TaskRunner
from paceline.layout import contribution_layout
from paceline.loading import build_dataset
from paceline.precision import FIRST_SCALE, GROWS_AFTER, LARGEST_SCALE, LossScale
from paceline.protos.framing import crc32c
from paceline.server.model import Image, ServerModel
from paceline.task_loading import TaskLoader
from paceline.update import Updater
from tests.jobs import Steep, Tiny

SEED, MICRO_BATCH = 3, 8


class OneRun:
    """A server's model and a worker's, driven round by round in this process."""

    def __init__(self, job: Any, precision: Any = "fp16") -> None:
        self.flat, self.here = build_model(job, SEED), build_model(job, SEED)
        updater = Updater(job, self.flat, SEED, precision)
        self.model = ServerModel(self.flat, updater, contribution_layout(self.flat.layout, "fast"), 0)
        settings = ComputeSettings(seed=SEED, micro_batch=MICRO_BATCH, precision=precision)
        self.runner = TaskRunner(job, self.here, build_dataset(job, SEED, MICRO_BATCH), settings)
        self.rounds = 0

    def round(self, scalars: tuple[str, ...] = ()) -> Image:
        """Make an update of one task."""
        self.here.version_view[:] = self.flat.version_view
        self.runner.adopt_version(self.model.loss_scale)
        done = self.runner.compute(self.runner.load(self.rounds))
        assert done is not None
        total = self.runner.new_sum()
        self.runner.accumulate(total, done)
        payload, push = bytes(total.host_view), PushId(self.rounds)
        assert self.model.write_whole(push, self.rounds, payload, crc32c(payload)) is None
        self.model.add(push, 1.0, measured=bool(scalars))
        self.rounds += 1
        image = self.model.apply(
            ApplyUpdate(version=self.rounds, samples=8, divisor=8.0, loss=1.0, tasks=1, scalars=scalars)
        )
        assert isinstance(image, Image), image
        return image


def with_grad_scaler(job: Any, rounds: int) -> tuple[FlatModel, list[float]]:
    """Train as a script with torch's GradScaler would; gives the scale of each round too."""
    flat = build_model(job, SEED)
    module = flat.module
    loader = TaskLoader(job, build_dataset(job, SEED, MICRO_BATCH), SEED, MICRO_BATCH)
    optimizer, scaler, scales = job.optimizer(module), torch.amp.GradScaler("cpu", init_scale=FIRST_SCALE), []
    for task in range(rounds):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = job.loss(module, loader.load(task).parts[0])
        scaler.scale(loss * MICRO_BATCH).backward()
        scaler.unscale_(optimizer)
        for parameter in module.parameters():
            if parameter.grad is not None:
                parameter.grad /= MICRO_BATCH
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
    return flat, scales


def test_updates_and_scales_are_those_of_torchs_grad_scaler() -> None:
    run = OneRun(Steep())
    images = [run.round() for _ in range(20)]
    expected, scales = with_grad_scaler(Steep(), 20)
    assert [image.loss_scale for image in images] == scales
    assert images[0].skipped
    assert not images[-1].skipped
    assert torch.allclose(run.flat.regions[0], expected.regions[0], atol=1e-6, rtol=1e-5)


def test_a_skipped_update_changes_nothing_but_the_scale() -> None:
    run = OneRun(Steep())
    before = run.flat.fingerprint()
    image = run.round(scalars=("squared-norm", "variance", "inner-product", "distance"))
    assert (image.skipped, image.loss_scale, image.scalars) == (True, FIRST_SCALE / 2, ())
    assert run.flat.fingerprint() == before
    assert not run.model._updater.optimizer.state, "nor did the optimizer count it"


def test_buffers_of_a_skipped_update_move_on_as_they_do_in_a_plain_loop() -> None:
    class SteepNorm(Steep):
        def model(self) -> nn.Module:
            return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 10))

    run = OneRun(SteepNorm())
    assert run.round().skipped
    assert run.flat.named_views()["2.num_batches_tracked"].item() == 1
    assert run.flat.named_views()["2.running_mean"].abs().sum() > 0


def test_a_snapshot_holds_the_scale() -> None:
    run = OneRun(Steep())
    run.round()
    other = OneRun(Steep())
    other.model.restore(1, run.model.snapshot().state)
    assert other.model.loss_scale == run.model.loss_scale == FIRST_SCALE / 2


def test_the_scale_is_doubled_after_many_updates_and_keeps_within_its_bounds() -> None:
    scale = LossScale("fp16")
    for _ in range(GROWS_AFTER - 1):
        scale.made()
    assert scale.value == FIRST_SCALE
    scale.made()
    assert scale.value == 2 * FIRST_SCALE
    for _ in range(20 * GROWS_AFTER):
        scale.made()
    assert scale.value == LARGEST_SCALE
    for _ in range(100):
        scale.skipped()
    assert (scale.value, scale.bears_overflow) == (1.0, False)


def test_other_precisions_have_no_scale() -> None:
    scale = LossScale("bf16")
    for _ in range(GROWS_AFTER):
        scale.made()
    assert (scale.value, scale.bears_overflow) == (1.0, False)


def test_at_scale_one_a_gradient_that_is_not_finite_is_an_error_of_its_task() -> None:
    class Overflowing(Steep):
        def loss(self, model: nn.Module, batch: Any) -> Any:
            return 1e9 * super().loss(model, batch)

    run = OneRun(Overflowing())
    for number in range(16):
        assert run.round().loss_scale == FIRST_SCALE / 2 ** (number + 1)
    with pytest.raises(TaskError, match=r"task 16: gradient of .* is not finite"):
        run.round()


def test_at_scale_one_the_server_takes_no_gradient_that_is_not_finite() -> None:
    run = OneRun(Steep())
    total = run.runner.new_sum()
    total.segments[0][0] = float("inf")
    payload = bytes(total.host_view)
    assert run.model.write_whole(PushId(1), 0, payload, crc32c(payload)) is None
    while run.model._updater.loss_scale.bears_overflow:
        run.model._updater.loss_scale.skipped()
    fault = run.model.write_whole(PushId(2), 0, payload, crc32c(payload))
    assert fault is not None
    assert "not finite" in fault[1]


def test_parameters_that_are_float16_are_refused() -> None:
    class Halved(Tiny):
        def model(self) -> nn.Module:
            return super().model().half()

    with pytest.raises(UsageError, match="is float16 with precision fp16: expected float32"):
        Updater(Halved(), build_model(Halved(), 1), 1, "fp16")
