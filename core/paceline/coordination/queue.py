"""The task stream: which ids are handed out next."""

from __future__ import annotations

import heapq

from paceline.coordination.ids import TaskId


class TaskQueue:
    """Hands out task ids in ascending order; ids that come back stand at the head again.

    Args:
        next_task: first id never handed out.
        returned: ids that were handed out and not used (at resume).
    """

    def __init__(self, next_task: int = 0, returned: tuple[TaskId, ...] = ()) -> None:
        self._next = next_task
        self._returned = list(returned)
        heapq.heapify(self._returned)

    @property
    def next_task(self) -> int:
        """The first id never handed out."""
        return self._next

    @property
    def returned(self) -> tuple[TaskId, ...]:
        """Ids that came back and wait to be handed out again, ascending."""
        return tuple(sorted(self._returned))

    def take(self, count: int) -> list[TaskId]:
        """Hand out the next ids, ascending."""
        back = [heapq.heappop(self._returned) for _ in range(min(count, len(self._returned)))]
        fresh = count - len(back)
        self._next += fresh
        return back + [TaskId(task) for task in range(self._next - fresh, self._next)]

    def withdraw(self, task: TaskId) -> None:
        """Take an id that came back out again: somebody else keeps it."""
        if task in self._returned:
            self._returned.remove(task)
            heapq.heapify(self._returned)

    def give_back(self, task: TaskId) -> None:
        """Put an unused id back at the head."""
        heapq.heappush(self._returned, task)
