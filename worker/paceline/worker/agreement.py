"""Builds a worker's job under the server's settings: dataset, model, runner, and the fingerprint of it all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

import torch

from paceline.errors import TaskError
from paceline.fingerprint import JobFingerprint, fingerprint
from paceline.flat import FlatModel, build_model
from paceline.gradients import ComputeSettings, TaskRunner
from paceline.job import Job
from paceline.layout import contribution_layout
from paceline.loading import build_dataset, build_validation
from paceline.protos import coordinator_pb2 as pb
from paceline.settings import SharedSettings, WorkerSettings
from paceline.streams import ShardCache, use_cache
from paceline.worker import convert


@dataclass(frozen=True, slots=True)
class BuiltJob:
    """What a worker computes with; kept as long as the server's settings stay the same.

    Attributes:
        segments: what a contribution is made of.
        inline: contributions are small enough to travel inside session messages.
        opening_s: seconds that opening the data took.
    """

    shared: SharedSettings
    flat: FlatModel
    runner: TaskRunner
    fingerprint: JobFingerprint
    segments: tuple[pb.SegmentInfo, ...]
    inline: bool
    opening_s: float


@dataclass(frozen=True, slots=True)
class WarmUp:
    """How the first, unrecorded task went.

    Attributes:
        trouble: what went wrong; None: nothing.
        load_s, compute_s: seconds of loading its samples, and of computing it.
    """

    trouble: str | None = None
    load_s: float = 0.0
    compute_s: float = 0.0


def cache_of(settings: WorkerSettings, worked: Callable[[], None]) -> ShardCache:
    """Give a worker's cache of shards; `worked` hears of each piece that has come."""
    return ShardCache(settings.cache, settings.cache_bytes, lambda nbytes: worked())


def build(job: Job, shared: SharedSettings, device: torch.device, cache: ShardCache | None = None) -> BuiltJob:
    """Build everything under the server's seed; may take long.

    Args:
        cache: for copies of shards.

    Raises:
        UsageError: see loading.
        JobImportError: the job's own code raised.
    """
    # Other counts may round differently.
    torch.set_num_threads(shared.threads)
    with contextlib.suppress(RuntimeError):  # it may be set once only, and not after the job's own parallel work
        torch.set_num_interop_threads(1)
    begun = monotonic()
    dataset = build_dataset(job, shared.seed, shared.micro_batch, shared.partition)
    validation = build_validation(job, shared.seed)
    use_cache(cache or ShardCache(), dataset, validation)
    opening_s = monotonic() - begun
    flat = build_model(job, shared.seed, device)
    runner = TaskRunner(job, flat, dataset, ComputeSettings.of(shared), validation)
    layout = contribution_layout(flat.layout, shared.sums)
    return BuiltJob(
        shared=shared,
        flat=flat,
        runner=runner,
        fingerprint=fingerprint(job, flat.layout, dataset, shared.seed, validation),
        segments=tuple(convert.segment_infos(layout)),
        inline=layout.nbytes <= shared.inline_bytes,
        opening_s=opening_s,
    )


def warm_up(runner: TaskRunner) -> WarmUp:
    """Run one task unrecorded, on the model as it is, so that first calls do not enter the statistics.

    What goes wrong in it is no reason to stay away: the server decides about tasks that fail.
    """
    try:
        runner.load(0)
        # Of the second time: the first one opens files and imports modules.
        begun = monotonic()
        batch = runner.load(0)
        loaded = monotonic()
        runner.compute_as_it_fits(batch)
        runner.synchronize()
    except (TaskError, SystemExit) as error:
        return WarmUp(str(error))
    return WarmUp(None, loaded - begun, monotonic() - loaded)
