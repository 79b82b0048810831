"""Workers report: tasks finished, failed, given up. A report is a hint; only contributions fill the sum."""

from __future__ import annotations

import math
from dataclasses import replace

from paceline.coordination import validating
from paceline.coordination.conduct import spent_s, valid
from paceline.coordination.cut import Attempt
from paceline.coordination.effects import LeaseVerdict, Outcome, SendVerdict, Warn
from paceline.coordination.events import (
    LeaseEnded,
    TaskFailed,
    TaskFailure,
    TaskReported,
    TaskResult,
    VersionGone,
)
from paceline.coordination.ids import LeaseId, SessionId, TaskId, WorkerName
from paceline.coordination.joining import leave
from paceline.coordination.leases import Lease, Phase
from paceline.coordination.members import Member, Standing
from paceline.coordination.plan import Finished
from paceline.coordination.resting import rest
from paceline.coordination.state import State


def task_reported(state: State, event: TaskReported) -> None:
    """Take a finished task into account; where it was not kept in advance, decide now."""
    member, lease = _holder(state, event.session, event.lease)
    if member is None or lease is None or not valid(state, event.result):
        return
    task = event.result.task
    claimed_s = min(event.result.seconds, max(0.0, spent_s(state, lease, math.inf) - lease.claimed_s))
    result = event.result if claimed_s == event.result.seconds else replace(event.result, seconds=claimed_s)
    if lease.measures:
        validating.reported(state, member, lease, result)
        return
    if task not in lease.running:
        _late_report(state, member, lease, result)
        return
    finished(state, member, lease, result)
    if lease.in_advance:
        return
    if _between_rounds(state, lease):
        lease.undecided[task] = None
        state.undecided.append((lease.id, task))
    else:
        _decide(state, member, lease, task)


def decide_late(state: State) -> None:
    """Decide on what was reported while the last round was closing, in order, as long as the new one takes more."""
    current, waiting = state.round, state.undecided
    state.undecided = []
    for number, (lease_id, task) in enumerate(waiting):
        lease = state.leases.get(lease_id)
        if lease is None or task not in lease.undecided:
            continue
        if current is None or current.quota.missing(current.counts, 0) == 0:
            state.undecided = waiting[number:]
            return
        del lease.undecided[task]
        _decide(state, state.members[lease.worker], lease, task)


def finished(state: State, member: Member, lease: Lease, result: TaskResult) -> None:
    """Book a finished task: it counts for the worker that ran it, used or not."""
    lease.running.pop(result.task, None)
    lease.results[result.task] = result
    lease.claimed_s += result.seconds
    _learn(state, member, Finished(member.name, result.seconds))
    member.computing_since = state.now if member.running_tasks() else None


def task_failed(state: State, event: TaskFailed) -> None:
    """Have a failed task done by another worker, or end the run when it fails everywhere."""
    member, lease = _holder(state, event.session, event.lease)
    if member is None or lease is None or event.task not in lease.running:
        return
    if lease.measures:
        validating.failed(state, member, lease, event)
        return
    del lease.running[event.task]
    lease.dropped.append(event.task)
    member.computing_since = state.now if member.running_tasks() else None
    seconds = spent_s(state, lease, event.seconds)
    state.waste(member.name, seconds, 1)
    lease.wasted_s += seconds
    if event.task in lease.kept:
        state.unkeep(lease, event.task)
    state.short = True
    if event.failure is TaskFailure.TIME_LIMIT:
        _learn(state, member, Finished(member.name, seconds, cut=True))
        _trial_over(state, lease, event.task)
    else:
        attempt_failed(state, member.name, event.task, event.message, event.traceback_text)
    state.freed[member.name] = None
    rest(state, member, lease)


def attempt_failed(state: State, worker: WorkerName, task: TaskId, message: str, traceback_text: str) -> None:
    """Remember a failed attempt; end the run if it was one too many."""
    attempts = state.attempts.setdefault(task, [])
    attempts.append(Attempt(worker, message, traceback_text))
    state.retries.add(task)
    workers = list(dict.fromkeys(attempt.worker for attempt in attempts))
    others = [m for m in state.members.values() if m.standing is Standing.ACTIVE and m.name != worker]
    # Where data belong to workers nobody else may try it.
    alone = len(attempts) > 1 and (not others or state.settings.parts > 0)
    if len(workers) > 1 or alone or len(attempts) >= state.settings.attempts:
        reason = f"task {task} failed on {', '.join(workers)}: {message}"
        state.finish(Outcome.FAILED, reason, task, traceback_text)
    else:
        state.out.append(Warn(f"task {task} failed on {worker} and is tried again: {message}"))


def lease_ended(state: State, event: LeaseEnded | VersionGone) -> None:
    """A worker is done with a lease for which it will push nothing: what it still held goes back."""
    member, lease = _holder(state, event.session, event.lease)
    if member is None or lease is None:
        return
    wasted_s = spent_s(state, lease, event.wasted_s) if isinstance(event, LeaseEnded) else 0.0
    # A worker does one task at a time: what it gave up was one task, begun in vain.
    state.waste(member.name, wasted_s, int(wasted_s > 0.0))
    lease.wasted_s += wasted_s
    failed = lease.dropped and not lease.results
    cancelled = LeaseVerdict.CANCELLED if lease.phase is Phase.CANCELLING else LeaseVerdict.DROPPED
    state.end_lease(lease, LeaseVerdict.FAILED if failed else cancelled)
    leave_if_drained(state, member)


def leave_if_drained(state: State, member: Member) -> None:
    """Let a draining worker go once it holds nothing."""
    if member.standing is Standing.DRAINING and not member.leases:
        leave(state, member)


def _holder(state: State, session: SessionId, lease: LeaseId) -> tuple[Member | None, Lease | None]:
    member = state.sessions.get(session)
    return member, None if member is None else member.leases.get(lease)


def _late_report(state: State, member: Member, lease: Lease, result: TaskResult) -> None:
    """Repeat a verdict; a task that was taken back while its report was on the way is billed, once."""
    task = result.task
    if task in lease.given_up and task not in lease.results:
        finished(state, member, lease, result)
        state.waste(member.name, result.seconds, 1)
        lease.wasted_s += result.seconds
    elif task in lease.undecided or lease.in_advance or member.session is None:
        return
    elif task in lease.results and task not in lease.given_up:
        state.out.append(SendVerdict(member.session, lease.id, task, task in lease.kept))


def _between_rounds(state: State, lease: Lease) -> bool:
    """Tell whether a result belongs to the next round: this one is closing, and the plan applies late work."""
    current = state.round
    if current is None or lease.phase is not Phase.OPEN:
        return False
    return (current.full or current.updating) and current.plan.max_staleness != 0


def _decide(state: State, member: Member, lease: Lease, task: TaskId) -> None:
    keep = _admissible(state, lease)
    if member.session is not None:
        state.out.append(SendVerdict(member.session, lease.id, task, keep))
    if keep:
        _keep(state, lease, task)
    else:
        _drop(state, lease, task)
    rest(state, member, lease)


def _admissible(state: State, lease: Lease) -> bool:
    current = state.round
    if current is None or current.full or current.updating or lease.phase is not Phase.OPEN:
        return False
    staleness = state.version - lease.version
    limit = current.plan.max_staleness
    return (limit is None or staleness <= limit) and current.quota.wants(lease.share, current.counts)


def _learn(state: State, member: Member, finished: Finished) -> None:
    if state.round is not None:
        state.round.finished.append((state.learned(member), finished))


def _keep(state: State, lease: Lease, task: TaskId) -> None:
    current = state.round
    if current is not None:
        lease.kept[task] = None
        current.count(lease.share, 1)
        current.awaiting.add(lease.id)


def _drop(state: State, lease: Lease, task: TaskId) -> None:
    lease.dropped.append(task)
    state.waste(lease.worker, lease.results[task].seconds, 1)
    lease.wasted_s += lease.results[task].seconds
    state.put_back(task)
    state.short = True


def _trial_over(state: State, lease: Lease, task: TaskId) -> None:
    state.put_back(task)
    if state.round is not None:
        state.round.count(lease.share, 1)
