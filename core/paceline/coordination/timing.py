"""Loss is decided here and nowhere else, by timers; the shell only wakes the machine at `Machine.deadline`."""

from __future__ import annotations

import heapq
import math

from paceline.coordination.effects import Warn
from paceline.coordination.events import Heard
from paceline.coordination.joining import lose, supersede
from paceline.coordination.members import Member
from paceline.coordination.state import State


def heard(state: State, event: Heard) -> None:
    """A sign of life, or of work."""
    member = state.incarnations.get(event.incarnation)
    if member is not None:
        touch(state, member, progress=event.progress)


def touch(state: State, member: Member, *, progress: bool = True) -> None:
    """Note that a worker lives (and works)."""
    member.heard_at = state.now
    if progress:
        member.progress_at = state.now
        member.warned = False


def tick(state: State) -> None:
    """Look at every worker whose time has come."""
    while state.timers and state.timers[0][0] <= state.now:
        at, name = heapq.heappop(state.timers)
        member = state.members.get(name)
        if member is None or at != member.timer_at:
            continue
        member.timer_at = math.inf
        _examine(state, member)
        if state.members.get(name) is member:
            state.arm(member, _next_look(state, member))


def _examine(state: State, member: Member) -> None:
    settings, now = state.settings, state.now
    if 0.0 < member.aside_until <= now:
        member.aside_until = 0.0
        state.freed[member.name] = None
        state.changed(member, "ready", "taken back")
    if member.claim is not None and member.claim.until <= now:
        supersede(state, member)
    elif member.closed_at is not None:
        if member.closed_at + settings.lost_after_s <= now:
            lose(state, member, f"its session broke and was not resumed for {settings.lost_after_s:g} s")
    elif member.heard_at + settings.silent_after_s <= now:
        lose(state, member, f"silent for {settings.silent_after_s:g} s")
    elif member.owes_progress() and member.progress_at + _patience_s(state, member) <= now:
        _no_progress(state, member)


def _no_progress(state: State, member: Member) -> None:
    patience_s = _patience_s(state, member)
    if _task_s(state, member) is not None:
        lose(state, member, f"no progress for {patience_s:.3g} s")
    elif not member.warned:
        member.warned = True
        text = (
            f"{member.name} has made no progress for {patience_s:.3g} s; it is waited for: its task time is not known"
        )
        state.out.append(Warn(text))


def _patience_s(state: State, member: Member) -> float:
    return max(state.settings.progress_s, state.settings.progress_factor * (_task_s(state, member) or 0.0))


def _task_s(state: State, member: Member) -> float | None:
    """Give the learned seconds per task; before a worker's first round is closed, those of its tasks in it."""
    known = state.learned(member)
    if known.mean_s is not None or state.round is None:
        return known.mean_s
    seconds = [task.seconds for whose, task in state.round.finished if whose is known]
    return sum(seconds) / len(seconds) if seconds else None


def _next_look(state: State, member: Member) -> float:
    """Give the next time at which `_examine` can find something; later than now, else `tick` would not end."""
    settings = state.settings
    if member.closed_at is not None:
        looks = [member.closed_at + settings.lost_after_s]
    else:
        looks = [member.heard_at + settings.silent_after_s]
        if member.owes_progress() and not member.warned:
            looks.append(member.progress_at + _patience_s(state, member))
    if member.claim is not None:
        looks.append(member.claim.until)
    if member.aside_until > 0.0:
        looks.append(member.aside_until)
    return min(looks)
