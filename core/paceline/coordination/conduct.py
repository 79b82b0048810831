"""How far a worker's word is taken, and what becomes of one whose word is not worth much. Ours, no paper's.

Seconds decide who gets how many tasks, so they are held against the coordinator's own clock: a worker did its tasks
between the grant of their lease and their report. What it claims beyond that is cut, not refused: its work is good
whatever its clock says, and with the cut it can only make itself look as slow as it really was. It can look faster
than it was by claiming less; then it gets more tasks than it can do, and the rounds show it.

A contribution that is refused costs its worker a short pause, as a task does that it fails and others manage. So many
refused ones, `strikes`, cost a long one; each time-out is twice as long as the one before, up to a bound, never for
ever. What is held against a name stays with it when it comes back as a new process.
"""

from __future__ import annotations

import math
from dataclasses import replace

from paceline.coordination.events import TaskResult
from paceline.coordination.ids import WorkerName
from paceline.coordination.leases import Lease
from paceline.coordination.members import Standing
from paceline.coordination.state import State

# Clocks of two machines run alike to 1 in 10,000; a report's own way only makes the time longer.
_CLOCK_RATE = 1.01


def valid(state: State, result: TaskResult) -> bool:
    """Tell whether a worker's numbers can be numbers at all; NaN fails every comparison."""
    return (
        0.0 <= result.seconds < math.inf
        and -math.inf < result.loss_sum < math.inf
        and 0 <= result.samples <= state.settings.most_samples
        and all(-math.inf < value < math.inf for _, value in result.sums)
    )


def spent_s(state: State, lease: Lease, claimed_s: float) -> float:
    """Cut seconds that a worker claims to what can have passed since the lease was granted; 0 for what is none."""
    passed_s = (state.now - lease.opened_s) * _CLOCK_RATE + state.settings.clock_slack_s
    return min(claimed_s, passed_s) if claimed_s >= 0.0 else 0.0


def in_time(state: State, lease: Lease, results: tuple[TaskResult, ...]) -> tuple[TaskResult, ...]:
    """Cut the seconds of a lease's tasks so that their sum can have passed: a worker does one task at a time."""
    left_s = spent_s(state, lease, math.inf)
    if math.fsum(result.seconds for result in results) <= left_s:
        return results
    cut = []
    for result in results:
        seconds = min(result.seconds, left_s)
        left_s -= seconds
        cut.append(replace(result, seconds=seconds, data_s=min(result.data_s, seconds)))
    return tuple(cut)


def put_aside(state: State, worker: WorkerName, why: str, least_s: float = 0.0) -> None:
    """Give a worker no tasks for a while; the while doubles each time.

    Args:
        least_s: it takes at least so long.
    """
    member = state.members.get(worker)
    if member is None or member.standing is not Standing.ACTIVE:
        return
    statistics = state.learned(member)
    pause_s = max(least_s, min(state.settings.aside_s * 2.0**statistics.strikes, state.settings.aside_max_s))
    statistics.strikes = min(statistics.strikes + 1, 60)
    conduct = state.conduct_of(worker)
    conduct.aside_until, conduct.why = state.now + pause_s, why
    member.aside_until = conduct.aside_until
    state.arm(member, member.aside_until)
    state.changed(member, "aside", f"gets no tasks for {pause_s:.3g} s: {why}")


def refused(state: State, worker: WorkerName, why: str) -> None:
    """Hold a refused contribution against its worker."""
    settings, conduct = state.settings, state.conduct_of(worker)
    conduct.refused += 1
    if conduct.refused % settings.strikes:
        put_aside(state, worker, f"its contribution was refused ({why})")
        return
    times = conduct.refused // settings.strikes - 1
    pause_s = min(settings.refused_aside_s * 2.0 ** min(times, 60), settings.refused_aside_max_s)
    put_aside(state, worker, f"{conduct.refused} of its contributions were refused (the last: {why})", pause_s)
