"""Looks at the state from outside: its invariants, and what people may see of it."""

from __future__ import annotations

import numpy as np

from paceline.allocation import ata_empirical_radius_s
from paceline.coordination.ids import TaskId, WorkerName, in_order
from paceline.coordination.leases import Lease, Phase
from paceline.coordination.members import Member, Standing, Statistics
from paceline.coordination.rounds import Round
from paceline.coordination.snapshot import Snapshot, WorkerSnapshot
from paceline.coordination.state import MachineError, State
from paceline.tasks import VALIDATION, is_validation, task_name


def validate(state: State) -> None:
    """See `Machine.validate`."""
    faults = [*_membership_faults(state), *_task_faults(state)]
    if state.round is not None and state.outcome is None:
        faults += _round_faults(state, state.round)
    if faults:
        raise MachineError(f"{'; '.join(faults)}; recently: {list(state.story)}")


def _membership_faults(state: State) -> list[str]:
    faults = []
    for session, member in state.sessions.items():
        if member.session != session or state.members.get(member.name) is not member:
            faults.append(f"session {session} belongs to nobody alive")
    for name, member in state.members.items():
        if (member.session is None) == (member.closed_at is None):
            faults.append(f"{name} is neither connected nor away")
        faults += [f"lease {i} of {name} is not in the books" for i in member.leases if i not in state.leases]
    for lease in state.leases.values():
        holder = state.members.get(lease.worker)
        if holder is None or lease.id not in holder.leases:
            faults.append(f"lease {lease.id} has no holder")
        if _forgotten(state, lease):
            faults.append(f"lease {lease.id} holds nothing, and {lease.worker} waits for more in it for ever")
    return faults


def _forgotten(state: State, lease: Lease) -> bool:
    if lease.in_advance or lease.phase is not Phase.OPEN or state.outcome is not None:
        return False
    if lease.running or lease.kept or lease.undecided or (lease.measures and state.measuring is not None):
        return False
    current = state.round
    return current is None or current.full or not current.plan.refill or lease.version != state.version


def _task_faults(state: State) -> list[str]:
    faults = []
    places: dict[TaskId, list[str]] = {}
    for task in state.queue.returned:
        places.setdefault(task, []).append("queue")
    for task in state.retries:
        places.setdefault(task, []).append("retries")
    for lease in state.leases.values():
        for task in lease.running.keys() | lease.kept.keys() | lease.undecided.keys():
            places.setdefault(task, []).append(f"lease {lease.id}")
    faults += [f"task {task} is in {' and '.join(where)}" for task, where in places.items() if len(where) > 1]
    measured = [task for task in places if is_validation(task)]
    faults += [
        f"task {task} was never handed out"
        for task in places
        if not is_validation(task) and not state.queue.was_handed_out(task)
    ]
    return faults + _validation_faults(state, measured)


def _validation_faults(state: State, in_hand: list[TaskId]) -> list[str]:
    if state.outcome is not None:
        return []
    measuring = state.measuring
    if measuring is None:
        return [f"{task_name(task)} is in a worker's hands, and nothing is measured" for task in in_hand]
    places = [*measuring.todo, *in_hand, *measuring.results]
    expected = range(VALIDATION, VALIDATION + state.settings.validation_tasks)
    if sorted(places) != list(expected):
        return [f"validation tasks are in {sorted(places)}: expected each of {expected} once"]
    return [] if state.round is None else ["a version is measured in the middle of a round"]


def _round_faults(state: State, current: Round) -> list[str]:
    faults = []
    awaiting = {lease.id for lease in state.leases.values() if lease.kept}
    if awaiting != current.awaiting:
        faults.append(f"awaits leases {sorted(current.awaiting)}, but {sorted(awaiting)} keep tasks")
    if current.full and current.quota.missing(current.counts, 0):
        faults.append("the round is full with too few tasks")
    kept = sum(len(lease.kept) for lease in state.leases.values())
    if not current.plan.limits_s and sum(current.counts.values()) != kept + current.tasks:
        faults.append(f"{sum(current.counts.values())} tasks counted, {kept} kept and {current.tasks} verified")
    if current.updating and current.awaiting:
        faults.append("the update was ordered with contributions missing")
    return faults


def snapshot(state: State, now: float) -> Snapshot:
    """See `Machine.snapshot`."""
    granted = state.round.granted if state.round is not None else state.last_granted
    workers = []
    for (name, device), statistics in state.statistics.items():
        member = state.members.get(name)
        gone = state.departed.get(name)
        if member is not None and member.device == device:
            shown, address, pace = _standing(member, now), member.address, member.pace
        elif gone is not None and gone.device == device:
            shown, address, pace = gone.state, gone.address, gone.pace
        else:
            continue
        workers.append(
            WorkerSnapshot(
                name=name,
                state=shown,
                device=device,
                address=address,
                tasks_done=statistics.tasks_done,
                busy_s=statistics.busy_s,
                mean_task_s=statistics.mean_s,
                radius_s=_radius_s(state, statistics),
                allocation=granted.get(name, 0),
                pace=pace,
                note=_note(state, name, now),
            )
        )
    known = {worker.name for worker in workers}
    workers += [_newcomer(state, m, now) for m in state.members.values() if m.name not in known]
    return Snapshot(
        state=_state(state),
        situation=_situation(state),
        round=state.round.number if state.round is not None else state.version,
        version=state.version,
        reason=state.reason,
        workers=tuple(sorted(workers, key=lambda worker: in_order(worker.name))),
    )


def _newcomer(state: State, member: Member, now: float) -> WorkerSnapshot:
    return WorkerSnapshot(
        name=member.name,
        state="joining",
        device=member.device,
        address=member.address,
        tasks_done=0,
        busy_s=0.0,
        mean_task_s=None,
        radius_s=None,
        allocation=0,
        pace=member.pace,
        note=_note(state, member.name, now),
    )


def _note(state: State, name: WorkerName, now: float) -> str:
    conduct = state.conduct.get(name)
    if conduct is None or conduct.aside_until <= now:
        return ""
    return f"gets no tasks for {conduct.aside_until - now:.0f} s: {conduct.why}"


def _standing(member: Member, now: float) -> str:
    if member.session is None:
        return "away"
    if member.standing is not Standing.ACTIVE:
        return str(member.standing.value)
    if member.aside_until > now:
        return "aside"
    if member.spare:
        return "spare"
    return "busy" if member.leases else "free"


def _radius_s(state: State, statistics: Statistics) -> float | None:
    if not statistics.tasks_done:
        return None
    radius = ata_empirical_radius_s(
        np.array([statistics.tasks_done], dtype=np.int64),
        np.array([statistics.busy_s]),
        np.array([max(1, state.version + 1 - statistics.first_round + 1)]),
        state.settings.radius_constant,
    )
    return float(radius[0])


def _state(state: State) -> str:
    if state.outcome is not None:
        return state.outcome.value
    if state.measuring is not None:
        return "training" if any(m.available(state.now) for m in state.members.values()) else "waiting"
    return "waiting" if state.round is None or _stranded(state, state.round) else "training"


def _stranded(state: State, current: Round) -> bool:
    if state.vacant_parts():
        return True
    return state.short and not current.full and not any(m.available(state.now) for m in state.members.values())


def _situation(state: State) -> str:
    if state.outcome is not None:
        return state.reason
    ready = sum(m.standing is Standing.ACTIVE for m in state.members.values())
    current = state.round
    vacant = ", ".join(map(str, state.vacant_parts()))
    if vacant and (state.version or current is not None):
        return f"waiting for a worker: part {vacant} of the data has none; the next to join takes it over"
    if state.measuring is not None:
        done = f"{len(state.measuring.results)} of {state.settings.validation_tasks} validation tasks are in"
        return f"measuring version {state.measuring.version}: {done}"
    if current is None:
        if state.version == 0 and ready < state.first_workers:
            return f"waiting for workers: {ready} of {state.first_workers} are ready"
        if not ready:
            paused = sum(m.standing is Standing.PAUSED for m in state.members.values())
            return f"waiting for a worker: {f'{paused} are paused' if paused else 'none is there'}"
        return f"waiting: {state.reason}" if state.reason else "waiting for workers that may be given tasks"
    if _stranded(state, current):
        return f"waiting for a worker: round {current.number} has tasks and nobody to do them"
    if current.updating:
        return f"round {current.number}: updating the model"
    if current.in_advance or current.full:
        busy = [lease for lease in state.leases.values() if lease.kept or lease.phase is not Phase.OPEN]
        return f"round {current.number}: {current.tasks} tasks in, {len(busy)} contributions to come"
    return f"round {current.number}: {sum(current.counts.values())} results kept so far"
