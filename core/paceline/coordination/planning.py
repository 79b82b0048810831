"""Rounds: planned, filled, planned again where a holder was lost, closed, committed."""

from __future__ import annotations

import math

from paceline.coordination import saving, validating
from paceline.coordination.effects import ApplyUpdate, Outcome, RoundPlanned, RoundRecord
from paceline.coordination.events import UpdateApplied, UpdateFailed
from paceline.coordination.ids import TaskId, WorkerName, in_order
from paceline.coordination.leases import Phase
from paceline.coordination.members import Member, Standing
from paceline.coordination.plan import Exactly, Update, View, WorkerView
from paceline.coordination.resting import cancel, collect
from paceline.coordination.rounds import Round
from paceline.coordination.state import MachineError, State, Stop
from paceline.coordination.working import decide_late


def advance(state: State) -> None:
    """Draw the consequences of an event: plan, refill, plan again, close or commit, whatever is due."""
    if state.outcome is not None:
        return
    current = state.round
    if state.updating:
        return
    # The last version is measured before a run is done; one that is stopped ends at once.
    measuring = None if state.stop is not None and state.stop.outcome is not Outcome.DONE else state.measuring
    if state.stop is not None and measuring is None and (current is None or state.stop.by <= state.now):
        state.finish(state.stop.outcome, state.stop.reason)
    elif state.alone_since is not None and state.alone_since + state.settings.idle_exit_s <= state.now:
        reason = f"no worker was there for {state.settings.idle_exit_s:g} s"
        state.finish(Outcome.STOPPED, reason, try_again=True)
    elif measuring is not None:
        validating.tend(state, measuring)
    elif current is None:
        _plan(state)
    else:
        _tend(state, current)


def updated(state: State, event: UpdateApplied) -> None:
    """The model has moved on: write the books, let the policy learn, end the run or go on."""
    current = state.round
    if current is None or not current.updating or event.version != current.number:
        raise MachineError(f"update to version {event.version} was not ordered; recently: {list(state.story)}")
    for statistics, task in current.finished:
        # A trial that was cut off says only that it would have taken longer.
        if not task.cut:
            statistics.tasks_done += 1
            statistics.busy_s += task.seconds
    ended = tuple(task for _, task in current.finished)
    scalars = dict(event.scalars)
    state.policy.updated(Update(version=event.version, loss=event.loss, scalars=scalars, finished=ended))
    state.version = event.version
    state.next_tasks, state.returned = state.queue.next_tasks, _unused(state)
    state.out += state.records
    state.out.append(_record(state, current, event))
    state.records, state.accounts, state.round = [], {}, None
    state.last_granted = current.granted
    if state.stop is None:
        validating.begin_if_due(state)
    if state.stop is None and validating.is_last(state):
        reason = f"{state.version} rounds are done"
        if state.measuring is None:
            state.finish(Outcome.DONE, reason)
            return
        state.stop = Stop(Outcome.DONE, reason, math.inf)
    saving.committed(state)


def update_failed(state: State, event: UpdateFailed) -> None:
    """The optimizer, a hook or the numbers failed: nothing can go on from here."""
    if state.round is None or not state.round.updating:
        raise MachineError(f"no update was ordered that could fail; recently: {list(state.story)}")
    state.finish(Outcome.FAILED, event.message)


def _record(state: State, current: Round, event: UpdateApplied) -> RoundRecord:
    return RoundRecord(
        round=current.number,
        version=state.version,
        allocation=current.allocation,
        reason=current.plan.reason,
        opened_s=current.opened_s,
        seconds=state.now - current.opened_s,
        loss=event.loss,
        samples=current.samples,
        tasks_used=current.tasks,
        workers=tuple(account.record(name, state.now) for name, account in state.accounts.items()),
        next_tasks=state.next_tasks,
        returned=state.returned,
        divisor=current.divisor,
        state_crc32c=event.state_crc32c,
        means=current.sums.means(),
        skipped=event.skipped,
    )


def _unused(state: State) -> tuple[TaskId, ...]:
    """Give the ids handed out and not applied: with the next task they are where a resumed run goes on.

    Those still in workers' hands (of rounds that let work go on) are among them: their leases die with this server.
    """
    leases = state.leases.values()
    in_hand = (task for lease in leases for task in lease.running.keys() | lease.kept.keys() | lease.undecided.keys())
    return tuple(sorted({*state.queue.returned, *state.retries, *in_hand}))


def _plan(state: State) -> None:
    """Ask the policy for the next round, if there is anybody to do it."""
    ready = [m for m in state.members.values() if m.available(state.now)]
    free = [m for m in ready if not m.leases]
    if not _may_begin(state) or state.vacant_parts():
        return
    open_leases = [lease for lease in state.leases.values() if lease.phase is Phase.OPEN]
    in_flight = any(lease.running or lease.undecided for lease in open_leases)
    if not free and not in_flight:
        return
    number = state.version + 1
    policy_before = state.policy.state()
    plan = state.policy.plan(_view(state, free, state.settings.tasks, again=False))
    state.reason = plan.reason
    given = {name: count for name, count in plan.allocation.items() if count > 0}
    if not given and not in_flight:
        return
    state.round = Round(
        number=number,
        plan=plan,
        policy_before=policy_before,
        in_advance=plan.kept_in_advance,
        quota=plan.quota,
        opened_s=state.now,
        allocation=tuple(given.items()),
    )
    state.freed.clear()
    # With fewer workers than the quota asks for, whoever comes free or joins is asked next.
    state.short = plan.quota.missing({}, sum(given.values())) > 0
    state.out.append(
        RoundPlanned(
            round=number, version=state.version, allocation=state.round.allocation, reason=plan.reason, again=False
        )
    )
    for name, count in given.items():
        member = state.members[name]
        state.account(name).planned += count
        state.open_lease(member, _draw(state, member, count), in_advance=state.round.in_advance)
    if state.undecided:
        decide_late(state)
        _tend(state, state.round)


def _may_begin(state: State) -> bool:
    """Tell whether enough workers are there for round 1; spare ones count, though they get nothing yet."""
    there = sum(m.available(state.now) or (m.spare and m.standing is Standing.ACTIVE) for m in state.members.values())
    return state.version > 0 or there >= state.first_workers or bool(state.leases)


def _view(state: State, members: list[Member], tasks: int, *, again: bool) -> View:
    """Show the policy the given members: founders first, by name, so that a seed fixes what a draw means to whom."""
    ordered = sorted(members, key=lambda m: (state.learned(m).first_round, in_order(m.name)))
    number = state.version + 1
    views = []
    for member in ordered:
        known = state.learned(member)
        views.append(
            WorkerView(
                name=member.name,
                tasks_done=known.tasks_done,
                busy_s=known.busy_s,
                rounds=max(1, number - known.first_round + 1),
                founder=known.founder,
                part=member.part,
            )
        )
    joined = sum(m.standing is Standing.ACTIVE for m in state.members.values())
    return View(round=number, tasks=tasks, workers=tuple(views), joined=joined, again=again)


def _tend(state: State, current: Round) -> None:
    """See whether the round is full, needs hands, or can be committed."""
    if current.stale:
        current.stale = False
        full = current.quota.missing(current.counts, 0) == 0
        if full and not current.full:
            _close(state, current)
        elif current.full and not full:
            # A holder was lost after the close: the round is open again, for those too who are done.
            current.full = False
            state.freed.update(dict.fromkeys(state.members))
            if state.undecided:
                # What was finished since the close can fill the place.
                decide_late(state)
                _tend(state, current)
                return
    if not current.full:
        if current.plan.refill:
            _refill(state, current)
        elif current.plan.join_in:
            _let_join_in(state, current)
        if state.short and not current.plan.refill:
            _plan_again(state, current)
            if current.stale:
                _tend(state, current)
                return
    elif not current.awaiting:
        _commit(state, current)
    if current.full or current.plan.join_in or (current.plan.refill and not state.vacant_parts()):
        state.freed.clear()


def _close(state: State, current: Round) -> None:
    """The quota is met: collect what is kept; cancel, or let go on, what is not."""
    current.full = True
    if current.plan.weigh is not None and not current.weights:
        # What each share has done is settled: one that is lost is done again by its successor, to the same weight.
        current.quota = Exactly(dict(current.counts))
        current.weights = current.plan.weigh(current.counts)
    for lease in list(state.leases.values()):
        member = state.members[lease.worker]
        if lease.in_advance or lease.phase is not Phase.OPEN or lease.undecided:
            continue
        if lease.kept:
            collect(state, member, lease)
        elif current.plan.cancel or not lease.running:
            cancel(state, member, lease)


def _commit(state: State, current: Round) -> None:
    """All contributions are verified: order the update. A round without any result is planned anew."""
    if not current.tasks:
        state.round = None
        _plan(state)
        return
    current.updating = True
    samples = max(current.samples, 1)
    if current.plan.divisor_tasks is not None:
        current.divisor = current.plan.divisor_tasks * samples / current.tasks
    elif current.weights:
        current.divisor = current.weighed_samples
    state.out.append(
        ApplyUpdate(
            version=current.number,
            samples=current.samples,
            divisor=samples if current.divisor is None else current.divisor,
            # fsum is exact, so the loss does not depend on the order of arrival.
            loss=math.fsum(current.losses) / samples,
            tasks=current.tasks,
            scalars=current.plan.scalars,
            mark=current.plan.mark,
        )
    )


def _let_join_in(state: State, current: Round) -> None:
    """Give a task to whoever has come free since the plan and had none in this round."""
    for name in state.freed:
        member = state.members.get(name)
        if member is None or member.leases or name in current.granted or not member.available(state.now):
            continue
        state.open_lease(member, _one_more(state, current, member), in_advance=False)


def _refill(state: State, current: Round) -> None:
    """Give another task of the round to whoever is free."""
    if state.vacant_parts():
        return
    for name in list(state.freed):
        member = state.members.get(name)
        if member is None or not member.available(state.now):
            continue
        if not current.quota.wants(member.share, current.counts):
            continue
        if not member.leases:
            state.open_lease(member, _one_more(state, current, member), in_advance=False)
            continue
        lease = next(iter(member.leases.values()))
        if len(member.leases) > 1 or lease.phase is not Phase.OPEN or lease.running or lease.undecided:
            continue
        if lease.version == state.version:
            state.grant(member, lease, _one_more(state, current, member))


def _one_more(state: State, current: Round, member: Member) -> list[TaskId]:
    """Draw a task for a worker, and book it as planned, or planned again."""
    tasks = _draw(state, member, 1)
    again = sum(task in current.lost for task in tasks)
    state.account(member.name).planned += len(tasks) - again
    state.account(member.name).replanned += again
    return tasks


def _plan_again(state: State, current: Round) -> None:
    """Give tasks of the round that lost their holder to others, at the same version."""
    in_flight = sum(
        len(lease.running.keys() - lease.kept.keys())
        for lease in state.leases.values()
        if lease.phase is Phase.OPEN and not lease.in_advance
    )
    stopping = _about_to_join(state, current)
    missing = max(0, current.quota.missing(current.counts, in_flight) - stopping)
    able = [m for m in state.members.values() if m.available(state.now) and (current.in_advance or not m.leases)]
    for task in sorted(state.retries):
        member = _other_hands(state, able, task)
        if missing and member is not None:
            state.retries.discard(task)
            _grant_again(state, member, [task], current)
            missing -= 1
            if not current.in_advance:
                able.remove(member)
    missing -= len(state.retries)
    if missing > 0 and able:
        plan = state.policy.plan(_view(state, able, missing, again=True))
        state.reason = plan.reason
        given = {name: count for name, count in plan.allocation.items() if count > 0}
        for name, count in given.items():
            _grant_again(state, state.members[name], state.queue.take(count), current)
            missing -= count
        shown = tuple(given.items())
        state.out.append(
            RoundPlanned(round=current.number, version=state.version, allocation=shown, reason=plan.reason, again=True)
        )
    state.short = missing > 0 or stopping > 0 or bool(state.retries)


def _about_to_join(state: State, current: Round) -> int:
    """Count workers that will join in when they have stopped what was cancelled: their places are not lost ones."""
    if not current.plan.join_in:
        return 0
    idle = [m for m in state.members.values() if m.available(state.now) and m.name not in current.granted]
    return sum(bool(m.leases) and all(x.phase is Phase.CANCELLING for x in m.leases.values()) for m in idle)


def _grant_again(state: State, member: Member, tasks: list[TaskId], current: Round) -> None:
    state.account(member.name).replanned += len(tasks)
    state.open_lease(member, tasks, in_advance=current.in_advance)


def _other_hands(state: State, able: list[Member], task: TaskId) -> Member | None:
    """Find the least loaded worker that has not failed a task; if there is nobody else at all, one that has."""
    candidates = [m for m in able if _may_try(state, m.name, task)]
    return min(candidates, key=lambda m: _load_s(state, m), default=None)


def _load_s(state: State, member: Member) -> float:
    return (member.running_tasks() + 1) * (state.learned(member).mean_s or 0.0)


def _draw(state: State, member: Member, count: int) -> list[TaskId]:
    """Take the next tasks for a worker: failed ones that it may try first, then the stream's."""
    mine = [task for task in sorted(state.retries) if _may_try(state, member.name, task)][:count]
    state.retries.difference_update(mine)
    return mine + state.queue.take(count - len(mine), member.part)


def _may_try(state: State, worker: WorkerName, task: TaskId) -> bool:
    if state.settings.parts:
        return state.members[worker].part == task % state.settings.parts
    failed = {attempt.worker for attempt in state.attempts.get(task, ())}
    everybody = {m.name for m in state.members.values() if m.standing is Standing.ACTIVE}
    return worker not in failed or not everybody - failed
