"""Loads tasks in processes of their own, beside the computing: torch's DataLoader, whose sampler is the row of tasks.

A thread of its own drives the DataLoader. Others tell it which tasks are wanted, in the order in which they will be
computed, and take them; what is loaded and wanted no more is dropped. At most 2 tasks per process are on their way or
wait to be taken.

A process that dies, or that gives nothing within the limit, takes all processes with it: torch cannot tell them apart.
They are started anew, and the oldest task that was on its way is tried once more, alone; if it is that again, it fails
by name.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from time import monotonic
from typing import Any

from torch.utils.data import DataLoader

from paceline.task_loading import TaskBatch
from paceline.tasks import task_name
from paceline.tracebacks import describe
from paceline.worker.loader_process import Failure, Loaded, LoaderSource, NoUse, Prepare, Request, Tasks, as_it_is

# Tasks per process that are on their way or wait to be taken.
DEPTH = 2
# After so many deaths before any task was loaded, one does without processes.
_DEATHS = 3
# Who waits for a task looks so often whether it is still wanted, and torch whether its processes live.
_LOOK_EVERY_S = 0.5


class LoadersError(Exception):
    """The processes are of no use; the reason is its text. Load in the computing thread."""


class Loaders:
    """See the module.

    Args:
        source: of the samples.
        count: processes, at least 1.
        limit_s: a task that is not loaded within this time fails.
        pin_memory: batches are moved to where a CUDA device can fetch them while it computes.
        micro_steps: slices per task.

    Attributes:
        micro_steps: the same, which may change; what is on its way by then comes as it was asked for.
    """

    def __init__(
        self, source: LoaderSource, count: int, *, limit_s: float, pin_memory: bool, micro_steps: int = 1
    ) -> None:
        self._source = source
        self._count = count
        self._limit_s = limit_s
        self._pin_memory = pin_memory
        self.micro_steps = micro_steps
        self._changed = threading.Condition()
        self._wanted: list[int] = []
        self._taking: int | None = None
        self._requested: deque[int] = deque()
        self._ready: dict[int, TaskBatch | Failure] = {}
        self._suspect: int | None = None
        self._deaths = 0
        self._delivered = False
        self._no_use = ""
        self._closing = False
        self._priming = True
        self._since = 0.0
        self._pieces: Any = None
        self._heard = 0
        self._thread = threading.Thread(target=self._run, name="loaders", daemon=True)
        self._thread.start()

    # ---- what others say ------------------------------------------------------------------------------------

    def want(self, tasks: Sequence[int]) -> None:
        """Say which tasks will be computed next, in order; others are wanted no more. Thread-safety: any thread."""
        with self._changed:
            taking = [] if self._taking is None else [self._taking]
            self._wanted = [*taking, *(task for task in tasks if task not in taking)]
            for task in [task for task in self._ready if task not in self._wanted]:
                del self._ready[task]
            if self._suspect not in self._wanted:
                self._suspect = None
            self._changed.notify_all()

    def take(self, task: int, wanted: Callable[[], bool], waited: Callable[[], None]) -> TaskBatch | None:
        """Wait for a task; it is the caller's from then on.

        Args:
            task: its id; it need not have been wanted before.
            wanted: asked while it waits.
            waited: called now and then meanwhile: the wait has a limit, and is no sign of death.

        Returns:
            None if it was wanted no more.

        Raises:
            TaskError: it cannot be loaded.
            LoadersError: nothing can be loaded here.
        """
        with self._changed:
            self._taking = task
            self._wanted = [task, *(other for other in self._wanted if other != task)]
            self._changed.notify_all()
            try:
                while task not in self._ready and not self._no_use:
                    if not wanted():
                        return None
                    self._changed.wait(_LOOK_EVERY_S)
                    waited()
            finally:
                self._taking = None
                self._wanted.remove(task)
                self._changed.notify_all()
            loaded = self._ready.pop(task, None)
        if loaded is None:
            raise LoadersError(self._no_use)
        if isinstance(loaded, Failure):
            raise loaded.error()
        return loaded

    @property
    def ready(self) -> list[int]:
        """Give the tasks that wait to be taken."""
        with self._changed:
            return sorted(self._ready)

    def close(self) -> None:
        """Order the end of the processes."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def join(self, timeout_s: float) -> None:
        """Wait until they have ended."""
        self._thread.join(timeout_s)

    # ---- the thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._load_all()
        except Exception as error:
            # Who waits for a task must hear of it.
            self._give_up(describe(error))

    def _give_up(self, reason: str) -> None:
        with self._changed:
            self._no_use = reason
            self._changed.notify_all()

    def _load_all(self) -> None:
        loader: DataLoader[Any] | None = None
        while self._wait():
            if loader is None:
                loader = self._start()
            try:
                self._load_row(iter(loader))
            except (RuntimeError, OSError, EOFError) as error:
                # The iterator's end kills its processes; the next one starts others.
                loader = None
                self._died(str(error))

    def _load_row(self, row: Iterator[Any]) -> None:
        """Deliver what the row gives, to its end.

        Raises:
            RuntimeError: a process died, or gave nothing within the limit.
        """
        while not self._closing and not self._no_use:
            try:
                self._deliver(next(row))
            except StopIteration:
                return
            except RuntimeError as error:
                # Torch looks for the dead only when it has waited so long; then it can go on.
                if not str(error).startswith("DataLoader timed out"):
                    raise
                self._look_for_pieces()
                if monotonic() - self._since > self._limit_s:
                    raise RuntimeError(f"nothing came within {self._limit_s:g} s") from error

    def _look_for_pieces(self) -> None:
        """A shard that still comes is no process that hangs, however long it takes."""
        heard = 0 if self._pieces is None else self._pieces.value
        if heard != self._heard:
            with self._changed:
                self._heard, self._since = heard, monotonic()

    def _start(self) -> DataLoader[Any]:
        context = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
        if hasattr(context, "set_forkserver_preload"):
            context.set_forkserver_preload(["paceline.worker.loader_process"])
        # More of them than cores is the user's choice, and is said in our own words.
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        self._pieces = context.Value("Q", 0)
        return DataLoader(
            Tasks(self._source, self._pieces),
            sampler=_Row(self._pick),
            batch_size=None,
            num_workers=self._count,
            collate_fn=as_it_is,
            worker_init_fn=Prepare(self._source.shared.threads),
            multiprocessing_context=context,
            persistent_workers=True,
            prefetch_factor=DEPTH,
            pin_memory=self._pin_memory,
            timeout=_LOOK_EVERY_S,
        )

    def _wait(self) -> bool:
        """Wait for something to load; False: it is over."""
        with self._changed:
            self._priming = True
            self._changed.wait_for(lambda: self._closing or bool(self._no_use) or self._next() is not None)
            return not self._closing and not self._no_use

    def _next(self) -> int | None:
        """Say which task to ask for; None: none at present. Where there is no room, one that comes later makes it."""
        full = len(self._requested) + len(self._ready) >= DEPTH * self._count
        if self._suspect is None:
            wanted = enumerate(self._wanted)
            place = next((n for n, task in wanted if task not in self._ready and task not in self._requested), None)
        else:
            alone = not self._requested and self._suspect in self._wanted
            place = self._wanted.index(self._suspect) if alone else None
        if place is None:
            return None
        if full:
            # Guessed ahead for a lease that did not come, say: who waits for another task must not wait for ever.
            later = next((task for task in reversed(self._wanted[place + 1 :]) if task in self._ready), None)
            if later is None:
                return None
            del self._ready[later]
        return self._wanted[place]

    def _pick(self) -> Request | None:
        """Give torch the next request. Torch asks once for each task that it has given, and never for more of them.

        So a row that was short when it began would stay so: then it is ended, to begin again with all that is wanted.
        """
        with self._changed:
            task = self._next()
            short = not self._priming and len(self._requested) < DEPTH * self._count - 1
            if task is None or (short and len(self._wanted) > len(self._requested) + len(self._ready) + 1):
                return None
            if not self._requested:
                self._since = monotonic()
            self._requested.append(task)
            return Request(task, self.micro_steps)

    def _deliver(self, loaded: Loaded) -> None:
        with self._changed:
            self._priming = False
            self._since = monotonic()
            if isinstance(loaded, NoUse):
                self._no_use = loaded.reason
            else:
                self._delivered = True
                self._forget(loaded.task)
                if loaded.task in self._wanted:
                    self._ready[loaded.task] = loaded
            self._changed.notify_all()

    def _died(self, reason: str) -> None:
        with self._changed:
            self._deaths += 1
            first = self._requested[0] if self._requested else None
            if self._deaths > _DEATHS and not self._delivered:
                self._no_use = f"loader processes died {self._deaths} times: {reason}"
            elif first is not None and first == self._suspect:
                message = f"{task_name(first)}: twice a loader process did not survive loading it: {reason}"
                self._suspect = None
                if first in self._wanted:
                    self._ready[first] = Failure(first, message, "exception")
            else:
                self._suspect = first
            self._requested.clear()
            self._changed.notify_all()

    def _forget(self, task: int) -> None:
        with contextlib.suppress(ValueError):
            self._requested.remove(task)
        if task == self._suspect:
            self._suspect = None


class _Row:
    """A sampler that gives what `pick` gives, and can go on after its end.

    Args:
        pick: None: there is nothing to load now.
    """

    def __init__(self, pick: Callable[[], Request | None]) -> None:
        self._pick = pick

    def __iter__(self) -> Iterator[Request]:
        return self

    def __next__(self) -> Request:
        request = self._pick()
        if request is None:
            raise StopIteration
        return request
