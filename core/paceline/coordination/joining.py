"""Workers come, come back, claim a name, leave or are lost."""

from __future__ import annotations

from paceline.coordination.effects import (
    CloseSession,
    Goodbye,
    LeaseVerdict,
    Probe,
    RefusalCode,
    Refuse,
    SendCancel,
    SendCollect,
    SendVerdict,
    Welcome,
)
from paceline.coordination.events import DrainRequested, Hello, PauseRequested, ProbeAnswered, Ready, SessionClosed
from paceline.coordination.leases import Lease, Phase
from paceline.coordination.members import Claim, Member, Standing, Statistics
from paceline.coordination.resting import rest
from paceline.coordination.state import NAMES_KEPT, Departed, State


def hello(state: State, event: Hello) -> None:
    """Welcome a newcomer, resume a broken session, or have a claimed name's holder asked."""
    if state.outcome is not None:
        state.out.append(Refuse(event.session, RefusalCode.RUN_OVER, f"the run is over: {state.reason}"))
        return
    holder = state.members.get(event.name)
    if holder is None:
        _welcome_unknown(state, event)
    elif holder.incarnation == event.incarnation:
        _resume(state, holder, event)
    elif holder.session is None:
        lose(state, holder, "superseded by a new process of the same name")
        _welcome(state, event)
    elif holder.claim is not None:
        _refuse_name(state, event, holder)
    else:
        holder.claim = Claim(event, state.now + state.settings.probe_s)
        state.claims[event.session] = holder
        state.out.append(Probe(holder.session))
        state.arm(holder, holder.claim.until)


def probe_answered(state: State, event: ProbeAnswered) -> None:
    """The holder of a claimed name lives: the newcomer is refused."""
    holder = state.sessions.get(event.session)
    if holder is not None and holder.claim is not None:
        newcomer = holder.claim.hello
        _drop_claim(state, holder)
        _refuse_name(state, newcomer, holder)


def supersede(state: State, holder: Member) -> None:
    """The holder did not answer: the newcomer takes the name, the old leases are void."""
    if holder.claim is not None and holder.session is not None:
        reason = f"another process ({holder.claim.hello.address}) has taken the name {holder.name}"
        state.out.append(Refuse(holder.session, RefusalCode.SUPERSEDED, reason))
    lose(state, holder, "did not answer when a new process claimed its name")


def ready(state: State, event: Ready) -> None:
    """A worker may be given tasks from now on."""
    member = state.sessions.get(event.session)
    if member is None or member.standing is not Standing.JOINING:
        return
    conduct = state.conduct.get(member.name)
    paused = conduct is not None and conduct.paused
    member.standing = Standing.PAUSED if paused else Standing.ACTIVE
    key = (member.name, member.device)
    if key not in state.statistics:
        first_round = 1 if state.round is None and state.version == 0 else state.version + 1 + (state.round is not None)
        state.statistics[key] = Statistics(first_round)
    place = _take_part(state, member)
    if paused:
        state.changed(member, "paused", f"{member.address}, {member.device}{place}; gets no tasks until it is resumed")
        return
    state.freed[member.name] = None
    state.changed(member, "ready", f"{member.address}, {member.device}{place}")


def session_closed(state: State, event: SessionClosed) -> None:
    """A control connection ended: its worker has lost_after_s to resume it."""
    claimed = state.claims.get(event.session)
    if claimed is not None:
        _drop_claim(state, claimed)
        return
    member = state.sessions.pop(event.session, None)
    if member is None:
        return
    member.session = None
    member.closed_at = state.now
    if member.claim is not None:
        supersede(state, member)
    elif member.standing is Standing.DRAINING and not member.leases:
        leave(state, member)
    else:
        state.changed(member, "away", "its session broke")
        state.arm(member, state.now + state.settings.lost_after_s)


def drain_requested(state: State, event: DrainRequested) -> None:
    """A worker will leave: it gets nothing new; what it has not begun is planned again."""
    member = state.sessions.get(event.session)
    if member is None or member.standing is Standing.DRAINING:
        return
    if member.standing is Standing.JOINING:
        leave(state, member)
        return
    member.standing = Standing.DRAINING
    state.changed(member, "draining", "asked to leave after its present task")
    for lease in list(member.leases.values()):
        rest(state, member, lease)
    if not member.leases:
        leave(state, member)


def pause_requested(state: State, event: PauseRequested) -> None:
    """A worker gets no tasks any more, or again. Where data belong to workers, rounds wait for it."""
    state.conduct_of(event.name).paused = event.paused
    member = state.members.get(event.name)
    if member is None:
        return
    if event.paused and member.standing is Standing.ACTIVE:
        member.standing = Standing.PAUSED
        state.freed.pop(member.name, None)
        state.changed(member, "paused", "ends what it has begun, then gets no tasks until it is resumed")
        for lease in list(member.leases.values()):
            rest(state, member, lease)
    elif not event.paused and member.standing is Standing.PAUSED:
        member.standing = Standing.ACTIVE
        state.freed[member.name] = None
        state.changed(member, "ready", "may be given tasks again")


def leave(state: State, member: Member) -> None:
    """Say goodbye to a drained worker."""
    if member.session is not None:
        state.out.append(Goodbye(member.session, "drained"))
    _depart(state, member, "left", "drained")


def lose(state: State, member: Member, reason: str) -> None:
    """Take a worker for lost: its leases are void, their tasks are planned again, their seconds are wasted."""
    if member.computing_since is not None and member.running_tasks():
        seconds = state.now - member.computing_since
        # A worker does one task at a time: what it gave up was one task, begun in vain.
        state.waste(member.name, seconds, 1)
        next(lease for lease in member.leases.values() if lease.running).wasted_s += seconds
    for lease in list(member.leases.values()):
        state.end_lease(lease, LeaseVerdict.LOST)
    if member.session is not None:
        state.out.append(CloseSession(member.session, f"lost: {reason}"))
    _depart(state, member, "lost", reason)


def _depart(state: State, member: Member, what: str, reason: str) -> None:
    claim = member.claim
    _drop_claim(state, member)
    del state.members[member.name]
    del state.incarnations[member.incarnation]
    if member.session is not None:
        state.sessions.pop(member.session, None)
    state.freed.pop(member.name, None)
    state.departed[member.name] = Departed(what, member.address, member.device, member.pace)
    _forget(state)
    state.changed(member, what, reason)
    _hand_on(state, member.part)
    if claim is not None:
        _welcome_unknown(state, claim.hello)


def _forget(state: State) -> None:
    """Keep so many names of those that are gone: who is gone the longest is forgotten first, the idle before others."""
    if len(state.departed) > NAMES_KEPT:
        del state.departed[next(iter(state.departed))]
    if len(state.statistics) > NAMES_KEPT + len(state.members):
        there = {(member.name, member.device) for member in state.members.values()}
        gone = [key for key in state.statistics if key not in there]
        del state.statistics[next((key for key in gone if not state.statistics[key].tasks_done), gone[0])]


def _take_part(state: State, member: Member) -> str:
    """Where data belong to workers: give a worker the first part that has none, and say so."""
    if not state.settings.parts:
        return ""
    taken = {m.part for m in state.members.values()}
    member.part = next((part for part in range(state.settings.parts) if part not in taken), None)
    member.spare = member.part is None
    return "; spare: every part has its worker" if member.spare else f"; has part {member.part}"


def _hand_on(state: State, part: int | None) -> None:
    """Give the part of a worker that is gone to a spare one, if there is any."""
    successor = next((m for m in state.members.values() if m.spare and m.standing is Standing.ACTIVE), None)
    if part is not None and successor is not None:
        successor.part, successor.spare = part, False
        state.freed[successor.name] = None
        state.changed(successor, "ready", f"takes over part {part}")


def _drop_claim(state: State, holder: Member) -> None:
    if holder.claim is not None:
        state.claims.pop(holder.claim.hello.session, None)
        holder.claim = None


def _refuse_name(state: State, event: Hello, holder: Member) -> None:
    reason = f"the name {event.name} is in use by {holder.address}: expected another name (--name)"
    state.out.append(Refuse(event.session, RefusalCode.NAME_IN_USE, reason))


def _welcome_unknown(state: State, event: Hello) -> None:
    if event.leases:
        reason = "this worker was taken for lost; its leases are void"
        state.out.append(Refuse(event.session, RefusalCode.LOST, reason))
    else:
        _welcome(state, event)


def _welcome(state: State, event: Hello) -> None:
    member = Member(
        name=event.name,
        incarnation=event.incarnation,
        address=event.address,
        device=event.device,
        pace=event.pace,
        session=event.session,
        heard_at=state.now,
        progress_at=state.now,
    )
    conduct = state.conduct.get(event.name)
    if conduct is not None and conduct.aside_until > state.now:
        member.aside_until = conduct.aside_until
        state.arm(member, member.aside_until)
    state.members[event.name] = state.sessions[event.session] = state.incarnations[event.incarnation] = member
    state.departed.pop(event.name, None)
    state.arm(member, state.now + state.settings.silent_after_s)
    state.out.append(Welcome(event.session, event.name, event.incarnation, resumed=False))
    state.changed(member, "joining", f"{event.address}, {event.device}")


def _resume(state: State, member: Member, event: Hello) -> None:
    if member.claim is not None:
        # The probe went to the old session; that its holder is back answers it.
        newcomer = member.claim.hello
        _drop_claim(state, member)
        _refuse_name(state, newcomer, member)
    if member.session is not None:
        del state.sessions[member.session]
        state.out.append(CloseSession(member.session, "resumed by a new session"))
    member.session = event.session
    member.closed_at = None
    member.heard_at = member.progress_at = state.now
    state.sessions[event.session] = member
    state.out.append(Welcome(event.session, member.name, member.incarnation, resumed=True))
    state.changed(member, "resumed", "its session is back")
    state.freed[member.name] = None
    for held in event.leases:
        if held not in member.leases and held not in member.settled:
            state.out.append(SendCancel(event.session, held))
    for lease in member.leases.values():
        _say_again(state, member, lease)


def _say_again(state: State, member: Member, lease: Lease) -> None:
    """Repeat all that may have been lost with the old session."""
    session = member.session
    if session is None:
        return
    if lease.phase is Phase.CANCELLING:
        state.out.append(SendCancel(session, lease.id))
        return
    state.send_lease(member, lease)
    if not lease.in_advance:
        for task in lease.granted:
            if task in lease.results and task not in lease.undecided:
                state.out.append(SendVerdict(session, lease.id, task, task in lease.kept))
    if lease.phase is Phase.COLLECTING:
        state.out.append(SendCollect(session, lease.id, tuple(lease.kept)))
