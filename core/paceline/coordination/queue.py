"""The task stream: which ids are handed out next."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from paceline.coordination.ids import TaskId


class TaskQueue:
    """Hands out task ids in ascending order; ids that come back stand at the head again.

    Where data belong to workers there is a stream for each of the parts: part i has the ids i, i + parts, i + 2 parts,
    ... Else there is one stream, part 0 of 1.

    Args:
        next_tasks: of each part, the first id never handed out (at resume); empty: the first of all.
        returned: ids that were handed out and not used (at resume).
        parts: number of streams.
    """

    def __init__(self, next_tasks: Sequence[int] = (), returned: tuple[TaskId, ...] = (), parts: int = 1) -> None:
        self._parts = parts
        self._next = list(next_tasks) or list(range(parts))
        self._returned: list[list[TaskId]] = [[] for _ in range(parts)]
        for task in returned:
            self.give_back(task)

    @property
    def next_tasks(self) -> tuple[int, ...]:
        """The first id never handed out, of each part."""
        return tuple(self._next)

    @property
    def returned(self) -> tuple[TaskId, ...]:
        """Ids that came back and wait to be handed out again, ascending."""
        return tuple(sorted(task for heap in self._returned for task in heap))

    def was_handed_out(self, task: TaskId) -> bool:
        """Tell whether anybody ever had this id."""
        return task < self._next[task % self._parts]

    def take(self, count: int, part: int | None = None) -> list[TaskId]:
        """Hand out the next ids of a part, ascending."""
        stream = part or 0
        heap, first = self._returned[stream], self._next[stream]
        back = [heapq.heappop(heap) for _ in range(min(count, len(heap)))]
        self._next[stream] = first + (count - len(back)) * self._parts
        return back + [TaskId(task) for task in range(first, self._next[stream], self._parts)]

    def withdraw(self, task: TaskId) -> None:
        """Take an id that came back out again: somebody else keeps it."""
        heap = self._returned[task % self._parts]
        if task in heap:
            heap.remove(task)
            heapq.heapify(heap)

    def give_back(self, task: TaskId) -> None:
        """Put an unused id back at the head."""
        heapq.heappush(self._returned[task % self._parts], task)
