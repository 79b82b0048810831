"""Guesses which tasks the next lease will have, so that their samples can be loaded before it comes. Pure.

The coordinator hands out the task stream in order, round after round. Where a worker's place and number in a round stay
much the same, its next tasks are the present ones, shifted by a round's tasks. A wrong guess costs the loading of
samples that nobody wants; so a guess is used only while the one before came true for half of the tasks or more.
"""

from __future__ import annotations

from collections.abc import Sequence

_TRUE_ENOUGH = 0.5


class Foresight:
    """Sees leases come, and guesses the next one."""

    def __init__(self) -> None:
        self._tasks: Sequence[int] = ()
        self._guess: list[int] = []
        self._trusted = False

    def came(self, tasks: Sequence[int]) -> None:
        """Note the tasks that a new lease brought."""
        if not tasks:
            return
        true = sum(task in self._guess for task in tasks)
        self._trusted = true >= _TRUE_ENOUGH * len(tasks)
        shift = tasks[0] - self._tasks[0] if self._tasks else 0
        self._guess = [task + shift for task in tasks] if shift > 0 else []
        self._tasks = tuple(tasks)

    def guess(self) -> list[int]:
        """Give the tasks that the next lease will bring; none where it cannot be told."""
        return list(self._guess) if self._trusted else []
