"""What becomes of a lease whose holder has nothing left to do in it, or is to stop."""

from __future__ import annotations

from paceline.coordination.effects import SendCancel, SendCollect
from paceline.coordination.leases import Lease, Phase
from paceline.coordination.members import Member, Standing
from paceline.coordination.state import State


def rest(state: State, member: Member, lease: Lease) -> None:
    """Let a lease with nothing to run be refilled, collected or cancelled.

    A lease kept in advance is its worker's own to push. Where nobody is cut off at the close, a lease is collected at
    its first result, so that it never holds kept and unfinished tasks at once when the round ends.
    """
    if lease.in_advance or lease.phase is not Phase.OPEN or lease.running or lease.undecided:
        return
    current = state.round
    more = (
        current is not None
        and current.plan.refill
        and not current.full
        and lease.version == state.version
        and member.standing is Standing.ACTIVE
    )
    if more and current is not None and (current.plan.cancel or not lease.kept):
        state.freed[member.name] = None
    elif lease.kept and current is not None and current.plan.weigh is not None and not current.full:
        # What it weighs is known at the close, where it is collected; who leaves cannot wait for that.
        if member.standing is not Standing.ACTIVE:
            cancel(state, member, lease)
    elif lease.kept:
        collect(state, member, lease)
    else:
        cancel(state, member, lease)


def collect(state: State, member: Member, lease: Lease) -> None:
    """Order a lease's contribution; what it has not finished goes back at once, so that others may do it."""
    lease.phase = Phase.COLLECTING
    _take_back(state, member, lease)
    if member.session is not None:
        state.out.append(SendCollect(member.session, lease.id, tuple(lease.kept)))


def cancel(state: State, member: Member, lease: Lease) -> None:
    """Give up a lease of which nothing is wanted; its worker is busy until it says that it has stopped."""
    lease.phase = Phase.CANCELLING
    _take_back(state, member, lease)
    if member.session is not None:
        state.out.append(SendCancel(member.session, lease.id))


def _take_back(state: State, member: Member, lease: Lease) -> None:
    for task in lease.give_up_running():
        state.put_back(task)
    member.progress_at = state.now
