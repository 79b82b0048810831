"""Limits the bytes of pushes that are received at once, so that memory does not grow with the number of workers.

A push gets its whole stage before its first chunk is sent: taken piece by piece, two half-staged pushes could wait for
each other for ever. Who waits is served in order. The stage that became the sum counts until its update is made; with
two stages or more there is always one that comes free.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

# A push that stays below this while another waits gives its stage up: half a megabit per second.
FLOOR_BYTES_PER_S = 64 * 1024
FLOOR_WINDOW_S = 10.0


@dataclass(slots=True, eq=False)
class Stage:
    """The right to have one stage filled.

    Attributes:
        granted: called when the right is given.
        too_slow: called when it should be given back; the owner then releases it.
        received_bytes: of the push so far, told by the owner.
        held_up: the server itself lets the push wait, told by the owner: such time does not count.
    """

    granted: Callable[[], None]
    too_slow: Callable[[], None]
    received_bytes: int = 0
    held_up: bool = False
    _since_s: float = field(default=0.0, init=False)
    _since_bytes: int = field(default=0, init=False)

    def begin(self, now_s: float) -> None:
        """Measure the speed from now on."""
        self._since_s, self._since_bytes = now_s, self.received_bytes

    def is_slow(self, now_s: float, others_wait: bool, stalled_s: float) -> bool:
        """Tell whether the push should give its stage up.

        Below the floor for a window it must if others wait; a push without a single byte for stalled_s must anyhow.
        """
        elapsed_s, came_bytes = now_s - self._since_s, self.received_bytes - self._since_bytes
        if self.held_up or (came_bytes and elapsed_s >= FLOOR_WINDOW_S and not others_wait):
            self.begin(now_s)
            return False
        if elapsed_s < FLOOR_WINDOW_S:
            return False
        if came_bytes >= FLOOR_BYTES_PER_S * elapsed_s:
            self.begin(now_s)
            return False
        return others_wait or elapsed_s >= stalled_s


class StagePool:
    """Hands out stages.

    Args:
        stages: how many there are; at least 2, since the sum keeps one.
        stalled_s: a push without a byte for so long loses its stage although nobody waits for it.
        now: seconds, monotonic.
    """

    def __init__(self, stages: int, stalled_s: float, now: Callable[[], float]) -> None:
        if stages < 2:
            raise ValueError(f"{stages} stages: the sum keeps one, so pushes need at least 2")
        self._free = stages
        self._stalled_s = max(stalled_s, FLOOR_WINDOW_S)
        self._now = now
        self._holding: set[Stage] = set()
        self._waiting: deque[Stage] = deque()

    @property
    def waiting(self) -> int:
        """Number of pushes that wait for a stage."""
        return len(self._waiting)

    def request(self, stage: Stage) -> None:
        """Grant a stage as soon as there is one; perhaps at once."""
        self._waiting.append(stage)
        self._serve()

    def filled(self, stage: Stage) -> None:
        """All bytes are in: the speed counts no more. The stage stays taken."""
        self._holding.discard(stage)

    def withdraw(self, stage: Stage) -> bool:
        """Forget a request that was not granted yet; False if it was."""
        if stage not in self._waiting:
            return False
        self._waiting.remove(stage)
        return True

    def release(self, stage: Stage | None = None) -> None:
        """Give a granted stage back. None: that which had become the sum."""
        if stage is not None:
            self._holding.discard(stage)
        self._free += 1
        self._serve()

    def check_speed(self) -> None:
        """Tell those that are too slow. To be called every second or so."""
        now_s = self._now()
        for stage in list(self._holding):
            if stage.is_slow(now_s, bool(self._waiting), self._stalled_s):
                self._holding.discard(stage)
                stage.too_slow()

    def _serve(self) -> None:
        while self._free and self._waiting:
            stage = self._waiting.popleft()
            self._free -= 1
            self._holding.add(stage)
            stage.begin(self._now())
            stage.granted()
