"""Gives the computing thread its tasks' samples: loaded ahead by processes of their own, or here and now."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import torch

from paceline.settings import WorkerSettings
from paceline.task_loading import TaskBatch
from paceline.worker.agreement import BuiltJob, WarmUp
from paceline.worker.loader_process import LoaderSource
from paceline.worker.loaders import Loaders, LoadersError

# So many processes are worth it where loading takes more than this share of the computing, and more than these seconds.
AUTO_LOADERS = 2
AUTO_SHARE = 0.1
AUTO_LEAST_S = 0.005
# Starting processes, which import torch, takes a while before the first task comes.
_START_S = 30.0


def loaders_for(asked: int | None, timing: WarmUp) -> int:
    """Say how many processes load samples.

    Args:
        asked: by the user; None: as many as are worth it.
        timing: of one task.
    """
    if asked is not None:
        return asked
    worth_it = timing.load_s > max(AUTO_LEAST_S, AUTO_SHARE * timing.compute_s)
    return AUTO_LOADERS if worth_it else 0


class Samples:
    """See the module. Owned by the computing thread, but for `want`.

    Args:
        settings: the worker's.
        device: where batches go.
        say: tells people, in one line.
        worked: called while the worker waits for samples: it is alive.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        device: torch.device,
        say: Callable[[str], None],
        worked: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._device = device
        self._say = say
        self._worked = worked
        self._built: BuiltJob | None = None
        self._loaders: Loaders | None = None

    @property
    def ahead(self) -> bool:
        """Tell whether tasks are loaded ahead by themselves."""
        return self._loaders is not None

    def begin(self, built: BuiltJob, timing: WarmUp) -> None:
        """Load for this job from now on."""
        self.close()
        self._built = built
        count = loaders_for(self._settings.loaders, timing)
        cores = os.cpu_count() or 1
        if count > cores:
            self._say(f"{count} loaders on a machine of {cores} cores: they get in each other's way")
        if not count:
            return
        settings = self._settings
        self._loaders = Loaders(
            LoaderSource(settings.job, settings.data, built.shared, (settings.cache, settings.cache_bytes)),
            count,
            limit_s=settings.loader_limit_s + _START_S + 2.0 * built.opening_s,
            pin_memory=self._device.type == "cuda",
            micro_steps=built.runner.micro_steps,
        )

    def want(self, tasks: Sequence[int]) -> None:
        """Say which tasks will be computed next, in order. Thread-safety: any thread."""
        loaders = self._loaders
        if loaders is not None:
            loaders.want(tasks)

    def load(self, task: int, wanted: Callable[[], bool]) -> TaskBatch | None:
        """Give a task's samples, on the device; None if it was wanted no more.

        Raises:
            TaskError: they cannot be loaded.
        """
        assert self._built is not None
        runner = self._built.runner
        if self._loaders is not None:
            self._loaders.micro_steps = runner.micro_steps
            try:
                batch = self._loaders.take(task, wanted, self._worked)
            except LoadersError as error:
                self._say(f"loads samples in the computing thread: {error}")
                self.close()
            else:
                return None if batch is None else runner.fetch(batch)
        return runner.load(task)

    def close(self) -> None:
        """End the processes."""
        loaders, self._loaders = self._loaders, None
        if loaders is not None:
            loaders.close()
