"""Cuts of the state: taken, gone on from, and saved when that is due or somebody asks; one at a time."""

from __future__ import annotations

from paceline.coordination import validating
from paceline.coordination.cut import Cut, Held, KnownWorker
from paceline.coordination.effects import Outcome, SaveCheckpoint, Warn
from paceline.coordination.events import CheckpointRequested, CheckpointSaved
from paceline.coordination.members import Statistics
from paceline.coordination.queue import TaskQueue
from paceline.coordination.state import Conduct, State
from paceline.errors import UsageError


def cut(state: State, now: float) -> Cut | None:
    """Take a cut at the last commit; None while the next version is being made.

    What was done since in the round in progress is not in it, what was learned of workers is.
    """
    if state.updating:
        return None
    before = None if state.round is None else state.round.policy_before
    # A run that a task has failed is resumed to try that task again.
    attempts = {} if state.outcome is Outcome.FAILED else state.attempts
    return Cut(
        version=state.version,
        next_tasks=state.next_tasks,
        returned=state.returned,
        attempts={task: tuple(tries) for task, tries in attempts.items()},
        workers=tuple(
            KnownWorker(
                name=name,
                device=device,
                first_round=known.first_round,
                tasks_done=known.tasks_done,
                busy_s=known.busy_s,
                strikes=known.strikes,
            )
            for (name, device), known in state.statistics.items()
        ),
        held=tuple(
            Held(
                name=name,
                refused=held.refused,
                aside_s=max(0.0, held.aside_until - now),
                why=held.why,
                paused=held.paused,
            )
            for name, held in state.conduct.items()
        ),
        measured=state.measured,
        policy=state.policy.name,
        policy_state=state.policy.state() if before is None else before,
    )


def restore(state: State, earlier: Cut) -> None:
    """Bring a fresh state to a cut.

    Raises:
        UsageError: it is another policy's, or does not fit the settings.
    """
    if earlier.policy != state.policy.name:
        raise UsageError(f"checkpoint is of policy {earlier.policy}: expected {state.policy.name}, the run's")
    streams = max(state.settings.parts, 1)
    if len(earlier.next_tasks) != streams:
        raise UsageError(f"checkpoint has {len(earlier.next_tasks)} streams of tasks: expected {streams}")
    state.policy.restore(earlier.policy_state)
    state.version = state.saving.version = earlier.version
    state.next_tasks, state.returned = earlier.next_tasks, earlier.returned
    state.attempts = {task: list(tries) for task, tries in earlier.attempts.items() if task in earlier.returned}
    state.retries = set(state.attempts)
    unseen = tuple(task for task in earlier.returned if task not in state.retries)
    state.queue = TaskQueue(earlier.next_tasks, unseen, streams)
    state.statistics = {
        (one.name, one.device): Statistics(one.first_round, one.tasks_done, one.busy_s, one.strikes)
        for one in earlier.workers
    }
    # This life's clock begins at 0.
    state.conduct = {one.name: Conduct(one.refused, one.aside_s, one.why, one.paused) for one in earlier.held}
    state.measured = earlier.measured
    validating.begin_if_due(state)


def committed(state: State) -> None:
    """Have the new version saved if that is due."""
    settings, saving = state.settings, state.saving
    rounds = settings.checkpoint_rounds
    due = (rounds is not None and state.version >= saving.version + rounds) or (
        state.now >= saving.at + settings.checkpoint_s
    )
    if due or saving.wanted:
        _save(state)


def requested(state: State, event: CheckpointRequested) -> None:
    """Save the present version, or the one that is being made."""
    state.saving.wanted = True
    if not state.updating:
        _save(state)


def saved(state: State, event: CheckpointSaved) -> None:
    """A cut was saved, or could not be: the next is tried when it is due."""
    state.saving.busy = False
    if event.fault:
        state.out.append(Warn(f"checkpoint of version {event.version} was not saved: {event.fault}"))
    if state.saving.wanted and not state.updating and state.outcome is None:
        _save(state)


def _save(state: State) -> None:
    saving = state.saving
    taken = None if saving.busy else cut(state, state.now)
    if taken is not None:
        saving.busy, saving.wanted = True, False
        saving.version, saving.at = state.version, state.now
        state.out.append(SaveCheckpoint(taken))
