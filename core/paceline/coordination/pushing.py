"""Contributions: offered, staged, verified, added once."""

from __future__ import annotations

from paceline.coordination.conduct import in_time, put_aside, refused, spent_s, valid
from paceline.coordination.effects import AcknowledgePush, AddContribution, LeaseVerdict, RefusePush, StagePush
from paceline.coordination.events import (
    ContributionInterrupted,
    ContributionOffered,
    ContributionRejected,
    ContributionVerified,
    Rejection,
)
from paceline.coordination.ids import LEASES_PER_LIFE, LeaseId, PushId, TaskId
from paceline.coordination.leases import Lease, Phase
from paceline.coordination.state import MachineError, Push, State
from paceline.coordination.working import attempt_failed, finished, leave_if_drained


def offered(state: State, event: ContributionOffered) -> None:
    """Let a push be staged if its lease is current and its manifest lists what the lease keeps."""
    if event.push in state.pushes:
        raise MachineError(f"push {event.push} was offered twice; recently: {list(state.story)}")
    lease = state.leases.get(event.lease)
    if lease is None or lease.incarnation != event.incarnation:
        _answer_unknown(state, event)
        return
    fault = _fault(state, lease, event)
    if fault is not None:
        _refuse(state, event.push, lease, *fault)
        return
    lease.push = event.push
    state.pushes[event.push] = Push(
        event.lease, event.incarnation, in_time(state, lease, event.results), spent_s(state, lease, event.wasted_s)
    )
    state.out.append(StagePush(event.push))


def verified(state: State, event: ContributionVerified) -> None:
    """Add a verified contribution, if its lease still stands; a lease's second one is acknowledged and not added."""
    push = _known(state, event.push)
    lease = state.leases.get(push.lease)
    if lease is None:
        member = state.incarnations.get(push.incarnation)
        if member is not None and push.lease in member.settled:
            state.out.append(AcknowledgePush(event.push))
        else:
            state.out.append(RefusePush(event.push, Rejection.STALE, f"lease {push.lease} is void"))
        return
    tasks = {result.task for result in push.results}
    if not tasks <= lease.kept.keys():
        _refuse(state, event.push, lease, Rejection.WRONG_TASKS, "its tasks were taken back meanwhile", late=True)
        return
    _apply(state, event.push, push, lease)


def rejected(state: State, event: ContributionRejected) -> None:
    """A staged push failed a check: it is refused, its tasks are planned again."""
    push = _known(state, event.push)
    lease = state.leases.get(push.lease)
    if lease is None:
        state.out.append(RefusePush(event.push, event.rejection, event.message))
        return
    _refuse(state, event.push, lease, event.rejection, event.message)
    if event.rejection is Rejection.NON_FINITE:
        # Which of its tasks made the sum so is not known: each must be managed by another worker.
        for result in push.results:
            if state.outcome is None:
                state.queue.withdraw(result.task)
                attempt_failed(state, lease.worker, result.task, event.message, "")


def interrupted(state: State, event: ContributionInterrupted) -> None:
    """A push broke off with its connection; the lease stands and may be pushed again."""
    push = _known(state, event.push)
    lease = state.leases.get(push.lease)
    member = state.incarnations.get(push.incarnation)
    if lease is not None and lease.push == event.push:
        lease.push = None
        if member is not None:
            member.progress_at = state.now


def _apply(state: State, push_id: PushId, push: Push, lease: Lease) -> None:
    current, member = state.round, state.members.get(lease.worker)
    if current is None or member is None:
        raise MachineError(f"lease {lease.id} lives outside a round; recently: {list(state.story)}")
    for result in push.results:
        if result.task not in lease.results:
            finished(state, member, lease, result)
    account = state.account(lease.worker)
    tasks = {result.task for result in push.results}
    for task in [task for task in lease.kept if task not in tasks]:
        if task in lease.results:
            state.waste(lease.worker, lease.results[task].seconds, 1)
            lease.wasted_s += lease.results[task].seconds
        state.unkeep(lease, task)
        if task not in lease.running:
            state.put_back(task)
    for task in lease.give_up_running():
        state.put_back(task)
    for result in push.results:
        account.used += 1
        account.used_s += result.seconds
        account.data_s += result.data_s
        current.tasks += 1
        current.samples += result.samples
        current.weighed_samples += current.weights.get(lease.share, 1.0) * result.samples
        current.losses.append(result.loss_sum)
        current.sums.add(result.sums, result.samples)
        _blame_failures(state, lease, result.task)
    account.last_s = state.now
    state.learned(member).strikes = 0
    # A worker does one task at a time: what it gave up was one task, begun in vain.
    state.waste(lease.worker, push.wasted_s, int(push.wasted_s > 0.0))
    lease.wasted_s += push.wasted_s
    weight = current.weights.get(lease.share, 1.0)
    current.awaiting.discard(lease.id)
    lease.results = {result.task: result for result in push.results}
    partly = len(lease.kept) < len(lease.granted)
    state.close_lease(lease, LeaseVerdict.PARTLY_APPLIED if partly else LeaseVerdict.APPLIED, weight)
    member.settle(lease.id)
    state.out.append(AddContribution(push_id, lease.id, weight, "variance" in current.plan.scalars))
    leave_if_drained(state, member)


def _blame_failures(state: State, lease: Lease, task: TaskId) -> None:
    """A task that one worker failed was managed by another: put the first aside."""
    for attempt in state.attempts.pop(task, ()):
        if attempt.worker != lease.worker:
            put_aside(state, attempt.worker, f"it failed task {task}, which {lease.worker} managed: {attempt.message}")


def _fault(state: State, lease: Lease, event: ContributionOffered) -> tuple[Rejection, str] | None:
    if event.version != lease.version:
        return Rejection.WRONG_VERSION, f"version is {event.version}: expected {lease.version}, the lease's"
    tasks = [result.task for result in event.results]
    known = set(tasks)
    if not tasks or len(known) < len(tasks):
        return Rejection.WRONG_TASKS, f"tasks are {_few(tasks)}: expected one or more different ones"
    if not known <= lease.kept.keys():
        strangers = sorted(known - lease.kept.keys())
        return Rejection.WRONG_TASKS, f"tasks {_few(strangers)} are not kept in lease {lease.id}"
    if not lease.in_advance and lease.phase is not Phase.COLLECTING:
        return Rejection.WRONG_TASKS, f"lease {lease.id} was pushed before it was collected"
    if not all(valid(state, result) for result in event.results):
        return Rejection.NON_FINITE, "seconds, loss or samples of a task are not a number"
    return None


def _refuse(
    state: State, push: PushId, lease: Lease, rejection: Rejection, message: str, *, late: bool = False
) -> None:
    """Refuse a push, and end its lease; to be late or slow is not held against a worker for long."""
    member = state.members.get(lease.worker)
    state.out.append(RefusePush(push, rejection, message))
    state.end_lease(lease, LeaseVerdict.REJECTED)
    if late or rejection is Rejection.TOO_SLOW:
        put_aside(state, lease.worker, f"its contribution was refused ({rejection.value}: {message})")
    else:
        refused(state, lease.worker, f"{rejection.value}: {message}")
    if member is not None:
        leave_if_drained(state, member)


def _answer_unknown(state: State, event: ContributionOffered) -> None:
    member = state.incarnations.get(event.incarnation)
    if member is not None and event.lease in member.settled:
        state.out.append(AcknowledgePush(event.push))
    elif _was_issued(state, event.lease):
        state.out.append(RefusePush(event.push, Rejection.STALE, f"lease {event.lease} is void"))
    else:
        state.out.append(RefusePush(event.push, Rejection.UNKNOWN_LEASE, f"lease {event.lease} was never given"))


def _was_issued(state: State, lease: LeaseId) -> bool:
    life, number = divmod(lease, LEASES_PER_LIFE)
    return 1 <= life < state.settings.life or (life == state.settings.life and number < state.next_lease)


def _known(state: State, push: PushId) -> Push:
    known = state.pushes.pop(push, None)
    if known is None:
        raise MachineError(f"push {push} is not being staged; recently: {list(state.story)}")
    return known


def _few(tasks: list[TaskId]) -> str:
    shown = ", ".join(str(task) for task in tasks[:5])
    return f"{shown}, ..." if len(tasks) > 5 else shown or "none"
