"""The coordinator: a deterministic machine, ``step(event, now) -> effects``.

Rules. It knows no clock, no connection, no tensor and no thread; time comes in as `now`, chance from the policy's
generator. Same settings, seed and events give the same effects. One owner calls `step`. Whatever a peer can cause is
answered by effects; what only our own shell can get wrong raises `MachineError` before anything is changed.

Theory. A round hands out tasks by leases. A task is *kept* when its place in the round's sum is promised to exactly one
holder: in advance, where all that is handed out is wanted, else by the verdict on its report. When enough tasks are
kept the round is full, contributions are collected, and when every one of them is verified the update is made. A
holder that is lost, refused or failing gives its places up again, and the round is open until others have filled them.

    waiting --plan--> open --quota met--> full --all verified--> updating --applied--> waiting
                       ^------- a place lost -------'

Where workers measure versions, they do it between two rounds: waiting --due--> measuring --judged--> waiting.

Modules: state (all data), joining (sessions, names, loss), working (reports), pushing (contributions), planning
(rounds), validating (measuring), timing (timers), saving (cuts), inspection (invariants and snapshot).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from paceline.coordination import inspection, joining, planning, pushing, saving, timing, validating, working
from paceline.coordination.cut import Cut
from paceline.coordination.effects import Effect, Outcome, RefusePush
from paceline.coordination.events import (
    CheckpointRequested,
    CheckpointSaved,
    ContributionInterrupted,
    ContributionOffered,
    ContributionRejected,
    ContributionVerified,
    DrainRequested,
    Event,
    Heard,
    Hello,
    LeaseEnded,
    PauseRequested,
    ProbeAnswered,
    Ready,
    Rejection,
    SessionClosed,
    StopRequested,
    TaskFailed,
    TaskReported,
    Tick,
    UpdateApplied,
    UpdateFailed,
    VersionGone,
    VersionJudged,
)
from paceline.coordination.machine_settings import MachineSettings
from paceline.coordination.plan import Policy
from paceline.coordination.queue import TaskQueue
from paceline.coordination.snapshot import Snapshot
from paceline.coordination.state import State, Stop


def _stop(state: State, event: StopRequested) -> None:
    outcome = Outcome.DONE if event.reached else Outcome.STOPPED
    by = state.now + event.grace_s
    if state.stop is None or by < state.stop.by:
        state.stop = Stop(outcome, event.reason, by)


def _after_the_end(state: State, event: Event) -> None:
    """Answer whoever still asks; nothing else happens any more."""
    if isinstance(event, Hello):
        joining.hello(state, event)
    elif isinstance(event, ContributionOffered | ContributionVerified | ContributionRejected):
        state.pushes.pop(event.push, None)
        state.out.append(RefusePush(event.push, Rejection.STALE, "the run is over"))
    elif isinstance(event, ContributionInterrupted):
        state.pushes.pop(event.push, None)


_HANDLERS: dict[type, Callable[[State, Any], None]] = {
    Hello: joining.hello,
    Ready: joining.ready,
    Heard: timing.heard,
    SessionClosed: joining.session_closed,
    ProbeAnswered: joining.probe_answered,
    DrainRequested: joining.drain_requested,
    PauseRequested: joining.pause_requested,
    TaskReported: working.task_reported,
    TaskFailed: working.task_failed,
    LeaseEnded: working.lease_ended,
    VersionGone: working.lease_ended,
    ContributionOffered: pushing.offered,
    ContributionVerified: pushing.verified,
    ContributionRejected: pushing.rejected,
    ContributionInterrupted: pushing.interrupted,
    UpdateApplied: planning.updated,
    UpdateFailed: planning.update_failed,
    VersionJudged: validating.judged,
    StopRequested: _stop,
    CheckpointRequested: saving.requested,
    CheckpointSaved: saving.saved,
    Tick: lambda state, _: timing.tick(state),
}


class Machine:
    """One run's coordinator.

    Args:
        settings: numbers that rule it.
        policy: plans its rounds.
        resume: where a life before this one was; its policy goes on from there.

    Raises:
        UsageError: the cut is another policy's, or does not fit the settings.
    """

    def __init__(self, settings: MachineSettings, policy: Policy, resume: Cut | None = None) -> None:
        queue = TaskQueue(parts=max(settings.parts, 1))
        self._state = State(settings, policy, queue, next_tasks=queue.next_tasks)
        if resume is not None:
            saving.restore(self._state, resume)

    def step(self, event: Event, now: float) -> list[Effect]:
        """Take one event in.

        Args:
            now: seconds since this server life began; never decreasing.

        Returns:
            What is to be done, in order.

        Raises:
            MachineError: the shell broke a rule; nothing was changed.
        """
        state = self._state
        state.now = now
        member = state.sessions.get(event.session) if hasattr(event, "session") else None
        if member is not None:
            timing.touch(state, member)
        if state.outcome is None:
            _HANDLERS[type(event)](state, event)
        else:
            _after_the_end(state, event)
        state.story.append((now, type(event).__name__))
        if state.members:
            state.alone_since = None
        elif state.alone_since is None:
            state.alone_since = now
        planning.advance(state)
        out, state.out = state.out, []
        return out

    @property
    def deadline(self) -> float | None:
        """When the next `Tick` is due; None while nothing is awaited."""
        state = self._state
        if state.outcome is not None:
            return None
        due = [state.timers[0][0]] if state.timers else []
        if state.alone_since is not None:
            due.append(state.alone_since + state.settings.idle_exit_s)
        if state.stop is not None and not state.updating:
            due.append(state.stop.by)
        first = min(due, default=math.inf)
        return first if first < math.inf else None

    def cut(self, now: float) -> Cut | None:
        """Take a cut at the last commit; None while the next version is being made, or if that failed."""
        return saving.cut(self._state, now)

    def snapshot(self, now: float) -> Snapshot:
        """Copy out what people may see."""
        return inspection.snapshot(self._state, now)

    def validate(self) -> None:
        """Check all invariants; for tests, after every event.

        Raises:
            MachineError: one does not hold; the message says which.
        """
        inspection.validate(self._state)
