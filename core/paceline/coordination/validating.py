"""Measuring a version: validation tasks, handed out between two rounds to whoever is free.

They are handed out by weighted factoring (Hummel, Schmidt, Uma and Wein, "Load-sharing in heterogeneous systems via
weighted factoring", SPAA 1996): whoever has nothing left gets half of his share, by learned speed, of what is not
handed out yet. So workers end at about the same time though nobody knows what a validation task takes, and few messages
are needed. Ours: a worker gets none where one that is busy would be done with one more sooner.

Every worker holds one lease for all its validation tasks; nothing is pushed for it, the reports bring the sums. It is
over when the coordinator says so; the round that follows begins only when all tasks are in and the shell has judged
what they show (a goal may be reached, a learning rate changed).
"""

from __future__ import annotations

import bisect
import math

from paceline.coordination.cut import Attempt
from paceline.coordination.effects import JudgeVersion, LeaseVerdict, Outcome, SendCancel, Warn
from paceline.coordination.events import TaskFailed, TaskResult, VersionJudged
from paceline.coordination.ids import TaskId, WorkerName, in_order
from paceline.coordination.joining import leave
from paceline.coordination.leases import Lease
from paceline.coordination.members import Member, Standing
from paceline.coordination.state import MachineError, Measuring, State
from paceline.round_sums import GivenSums
from paceline.tasks import VALIDATION, task_name


def begin_if_due(state: State) -> None:
    """Begin to measure the present version, if that is due and was not done."""
    settings, version = state.settings, state.version
    if not settings.validation_tasks or version <= state.measured:
        return
    every = settings.validate_every
    if is_last(state) or (every and version % every == 0):
        todo = [TaskId(task) for task in range(VALIDATION, VALIDATION + settings.validation_tasks)]
        state.measuring = Measuring(version, state.now, todo)


def is_last(state: State) -> bool:
    """Tell whether all rounds are done."""
    return state.settings.rounds is not None and state.version >= state.settings.rounds


def tend(state: State, measuring: Measuring) -> None:
    """Hand out what is left; when all is in, have it judged."""
    if measuring.judging:
        return
    _hand_out(state, measuring)
    if len(measuring.results) == state.settings.validation_tasks:
        _conclude(state, measuring)


def reported(state: State, member: Member, lease: Lease, result: TaskResult) -> None:
    """Take in the sums of a finished task."""
    measuring, task = state.measuring, result.task
    if measuring is None or task not in lease.running:
        return
    del lease.running[task]
    lease.results[task] = result
    lease.claimed_s += result.seconds
    member.computing_since = state.now if member.running_tasks() else None
    measuring.results[task] = result
    if member.standing is not Standing.ACTIVE:
        end(state, member, lease)


def failed(state: State, member: Member, lease: Lease, event: TaskFailed) -> None:
    """Have another worker try a failed task; end the run where it fails everywhere."""
    measuring, task = state.measuring, event.task
    if measuring is None:
        return
    del lease.running[task]
    member.computing_since = state.now if member.running_tasks() else None
    attempts = measuring.attempts.setdefault(task, [])
    attempts.append(Attempt(member.name, event.message, event.traceback_text))
    bisect.insort(measuring.todo, task)
    workers = list(dict.fromkeys(attempt.worker for attempt in attempts))
    others = [m for m in state.members.values() if m.standing is Standing.ACTIVE and m.name != member.name]
    if len(workers) > 1 or (len(attempts) > 1 and not others) or len(attempts) >= state.settings.attempts:
        reason = f"{task_name(task)} failed on {', '.join(workers)}: {event.message}"
        state.finish(Outcome.FAILED, reason, task, event.traceback_text)
    else:
        state.out.append(Warn(f"{task_name(task)} failed on {member.name} and is tried again: {event.message}"))


def end(state: State, member: Member, lease: Lease) -> None:
    """End a lease; its worker need not answer, and may leave if it waits for that."""
    if member.session is not None:
        state.out.append(SendCancel(member.session, lease.id))
    state.end_lease(lease, LeaseVerdict.CANCELLED)
    if member.standing is Standing.DRAINING and not member.leases:
        leave(state, member)


def judged(state: State, event: VersionJudged) -> None:
    """The shell knows what the measured version is worth: go on."""
    measuring = state.measuring
    if measuring is None or not measuring.judging or event.version != measuring.version:
        raise MachineError(f"version {event.version} was not to be judged; recently: {list(state.story)}")
    state.measured = measuring.version
    state.measuring = None


def _hand_out(state: State, measuring: Measuring) -> None:
    able = [member for member in state.members.values() if member.available(state.now)]
    able.sort(key=lambda member: in_order(member.name))
    means_s = _means_s(state, able)
    speed = sum(1.0 / mean_s for mean_s in means_s.values())
    for member in able:
        if member.running_tasks() or not measuring.todo:
            continue
        mean_s = means_s[member.name]
        sooner_s = min(
            ((other.running_tasks() + 1) * means_s[other.name] for other in able if other.running_tasks()),
            default=math.inf,
        )
        if sooner_s < mean_s:
            continue
        share = len(measuring.todo) / mean_s / speed / 2.0
        tasks = _take(state, measuring, member, max(1, math.ceil(share)))
        if tasks:
            _give(state, member, tasks)


def _means_s(state: State, members: list[Member]) -> dict[WorkerName, float]:
    """Give everybody's learned seconds per task; of whom nothing is known, the mean of those of whom something is."""
    known = {m.name: mean_s for m in members if (mean_s := state.learned(m).mean_s) is not None and mean_s > 0.0}
    usual_s = sum(known.values()) / len(known) if known else 1.0
    return {member.name: known.get(member.name, usual_s) for member in members}


def _take(state: State, measuring: Measuring, member: Member, count: int) -> list[TaskId]:
    """Take the next tasks for a worker: none that it has failed, while there are others who have not."""
    everybody = {m.name for m in state.members.values() if m.standing is Standing.ACTIVE}

    def may_try(task: TaskId) -> bool:
        failed = {attempt.worker for attempt in measuring.attempts.get(task, ())}
        return member.name not in failed or not everybody - failed

    taken = measuring.todo[:count] if not measuring.attempts else [t for t in measuring.todo if may_try(t)][:count]
    measuring.todo = [task for task in measuring.todo if task not in set(taken)]
    return taken


def _give(state: State, member: Member, tasks: list[TaskId]) -> None:
    for lease in member.leases.values():
        if lease.measures:
            state.grant(member, lease, tasks)
            return
    state.open_lease(member, tasks, measures=True)


def _conclude(state: State, measuring: Measuring) -> None:
    for lease in [lease for lease in state.leases.values() if lease.measures]:
        end(state, state.members[lease.worker], lease)
    results = [measuring.results[task] for task in sorted(measuring.results)]
    given = GivenSums()
    for result in results:
        given.add(result.sums, result.samples)
    measuring.judging = True
    state.out.append(
        JudgeVersion(
            version=measuring.version,
            means=given.means(),
            tasks=len(results),
            worker_s=math.fsum(result.seconds for result in results),
            seconds=state.now - measuring.begun,
        )
    )
