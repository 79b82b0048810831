"""A worker of several processes, one for each device of a machine: torchrun starts them, rank 0 speaks for all.

The server sees one worker. The tasks of a lease lie on a heap from which all ranks draw, so that each does as many as
its speed lets it; each sums its gradients up by itself, and when the heap is empty torch.distributed adds these sums.
Words go through torchrun's key-value store as JSON, tensors through collectives: gloo on the host, NCCL between GPUs.

A rank that dies takes the others with it: torchrun ends them, and starts all again where --max-restarts says so. The
server sees a worker that is lost, and one that comes.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from paceline.contribution import ContributionBuffer
from paceline.errors import SettingsError, TryAgainError
from paceline.layout import Rule

# A worker may wait for a run for days; torch's own patience is half an hour.
_PATIENCE = datetime.timedelta(days=60)
_LOOK_EVERY = datetime.timedelta(seconds=0.5)
# By then all have carried an order out: of three in a row at least one is answered.
_REMEMBERED = 6
_STORE_LIMIT = datetime.timedelta(seconds=60)

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """Which of how many processes this is."""

    rank: int
    size: int


def place_of(environ: Mapping[str, str]) -> Place | None:
    """Read what torchrun says; None: this process is a worker by itself.

    Raises:
        SettingsError: it says something else, or that the processes are on several machines.
    """
    # Others set RANK too, for programs of theirs that start workers.
    if not all(name in environ for name in ("TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE")):
        return None
    try:
        rank, size = int(environ["RANK"]), int(environ["WORLD_SIZE"])
        here = int(environ.get("LOCAL_WORLD_SIZE", size))
    except ValueError:
        said = {name: environ.get(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")}
        raise SettingsError(f"the environment has {said}: expected whole numbers, as torchrun sets them") from None
    if here != size:
        raise SettingsError(f"{size} processes, but {here} of them on this machine: expected one worker per machine")
    return Place(rank, size) if size > 1 else None


class Team:
    """The processes of one worker, seen from one of them; all are there when it is made.

    Args:
        place: of this process.
        device: that it computes on.
    """

    def __init__(self, place: Place, device: torch.device) -> None:
        self.place = place
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = dist.TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=_STORE_LIMIT)  # type: ignore[attr-defined]
        # The store outlives a restart of the processes.
        self._store = dist.PrefixStore(f"paceline/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)  # type: ignore[attr-defined]
        self._number = 0

    def close(self) -> None:
        """Leave."""
        dist.destroy_process_group()

    # ---- orders: what rank 0 has all do, one after another -------------------------------------------------------

    def order(self, what: str, **details: object) -> None:
        """Have the others do something; rank 0's."""
        self._number += 1
        self._store.set(f"order/{self._number}", json.dumps({"do": what, **details}))
        self._forget(self._number - _REMEMBERED)

    def next_order(self, go_on: Callable[[], bool]) -> Json | None:
        """Wait for rank 0's next order; None: `go_on` said no."""
        self._number += 1
        return self._wait_for(f"order/{self._number}", go_on)

    def answer(self, document: Json) -> None:
        """Tell rank 0 what became of the present order."""
        self._store.set(f"answer/{self._number}/{self.place.rank}", json.dumps(document))

    def answers(self, meanwhile: Callable[[], None]) -> list[Json]:
        """Wait for what all others answer to the present order.

        Args:
            meanwhile: called twice a second; it may raise.
        """
        keys = [f"answer/{self._number}/{rank}" for rank in range(1, self.place.size)]
        found = []
        for key in keys:
            while (one := self._wait_for(key, lambda: False)) is None:
                meanwhile()
            found.append(one)
        return found

    def _wait_for(self, key: str, go_on: Callable[[], bool]) -> Json | None:
        # In short waits, between which signals are heard.
        while True:
            try:
                self._store.wait([key], _LOOK_EVERY)
            except dist.DistError as error:
                if "timeout" not in str(error).lower():
                    raise TryAgainError(f"the processes of this worker cannot reach one another: {error}") from error
                if not go_on():
                    return None
                continue
            document: Json = json.loads(self._store.get(key))
            return document

    def _forget(self, number: int) -> None:
        """Drop what was said of an order that all have carried out."""
        if number < 1:
            return
        keys = [f"answer/{number}/{rank}" for rank in range(1, self.place.size)]
        for key in (f"order/{number}", f"heap/{number}", f"halt/{number}", *keys):
            self._store.delete_key(key)

    # ---- a heap of tasks -------------------------------------------------------------------------------------------

    def draw(self, tasks: Sequence[int]) -> int | None:
        """Take the next task of the present order; None: there is none left."""
        place = self._store.add(f"heap/{self._number}", 1) - 1
        return tasks[place] if place < len(tasks) else None

    def close_heap(self, tasks: Sequence[int]) -> None:
        """Leave the tasks that nobody has drawn."""
        self._store.add(f"heap/{self._number}", len(tasks))

    def halt(self) -> None:
        """Have the others give up the tasks that they are at."""
        self._store.set(f"halt/{self._number}", "1")

    def halted(self) -> bool:
        """Tell whether rank 0 said so."""
        return bool(self._store.check([f"halt/{self._number}"]))

    def step(self) -> None:
        """Tell rank 0 that there was progress."""
        self._store.add("steps", 1)

    def steps(self) -> int:
        """Count the progress of all others."""
        return int(self._store.add("steps", 0))

    # ---- tensors ---------------------------------------------------------------------------------------------------

    def spread(self, view: memoryview) -> None:
        """Give all ranks rank 0's bytes."""
        if len(view):
            dist.broadcast(torch.frombuffer(view, dtype=torch.uint8), src=0)

    def add_up(self, total: ContributionBuffer, lowest: int) -> None:
        """Add all ranks' sums in rank 0's; those of the others are of no use afterwards.

        Args:
            lowest: the rank with the lowest task, whose buffers the contribution has.
        """
        for segment, tensor in zip(total.layout.segments, total.segments, strict=True):
            if segment.rule is Rule.SUM:
                dist.reduce(torch.view_as_real(tensor) if tensor.is_complex() else tensor, dst=0)
            elif lowest and tensor.numel():
                dist.broadcast(tensor.view(torch.uint8), src=lowest)
