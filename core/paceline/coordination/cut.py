"""A cut through the run at one version: all of the coordinator that outlives its server.

Leases, sessions and members die with the server; tasks that were in their hands are in `returned`, since what is not
applied in the version is to be done again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from paceline.coordination.ids import TaskId, WorkerName
from paceline.coordination.plan import Json, PolicyState
from paceline.coordination.saved import Saved, number


@dataclass(frozen=True, slots=True)
class Attempt:
    """One failed attempt at a task."""

    worker: WorkerName
    message: str
    traceback_text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownWorker:
    """What was learned of one name on one device; see `members.Statistics`."""

    name: WorkerName
    device: str
    first_round: int
    tasks_done: int
    busy_s: float
    strikes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What is held against a name; see `state.Conduct`.

    Attributes:
        aside_s: it gets no tasks for so long yet.
        paused: it gets none until somebody says otherwise.
    """

    name: WorkerName
    refused: int
    aside_s: float
    why: str
    paused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """What a coordinator goes on from.

    Attributes:
        version: of the model that it belongs to.
        next_tasks, returned: the task streams' position, see `effects.RoundRecord`.
        attempts: at tasks that failed and are not applied.
        workers, held: what was learned of them, and what is held against them.
        measured: the last version that workers measured and that was judged, 0: none.
        policy: the policy's name; `policy_state` what it keeps, as it stood before it planned the next round.
    """

    version: int
    next_tasks: tuple[int, ...]
    returned: tuple[TaskId, ...]
    attempts: Mapping[TaskId, tuple[Attempt, ...]]
    workers: tuple[KnownWorker, ...]
    held: tuple[Held, ...]
    measured: int
    policy: str
    policy_state: PolicyState

    def to_json(self) -> Json:
        """Give it as plain data."""
        return {
            "version": self.version,
            "next_tasks": list(self.next_tasks),
            "returned": list(self.returned),
            "attempts": {
                str(task): [[attempt.worker, attempt.message, attempt.traceback_text] for attempt in attempts]
                for task, attempts in self.attempts.items()
            },
            "workers": [
                [one.name, one.device, one.first_round, one.tasks_done, number(one.busy_s), one.strikes]
                for one in self.workers
            ],
            "held": [[one.name, one.refused, one.aside_s, one.why, int(one.paused)] for one in self.held],
            "measured": self.measured,
            "policy": self.policy,
            "policy_state": self.policy_state,
        }

    @classmethod
    def from_json(cls, value: Json) -> Cut:
        """Read what `to_json` gave; the policy itself looks at its state.

        Raises:
            UsageError: it is something else; the message says what and where.
        """
        keys = ("version", "next_tasks", "returned", "attempts", "workers", "held", "measured", "policy")
        fields = Saved("cut", value).fields(*keys, "policy_state")
        version, next_tasks, returned, attempts, workers, held, measured, policy, policy_state = fields
        return cls(
            version=version.count(0),
            next_tasks=tuple(one.count(0) for one in next_tasks.row(1)),
            returned=tuple(TaskId(one.count(0)) for one in returned.row(0)),
            attempts=dict(_attempts(task, rows) for task, rows in attempts.items()),
            workers=tuple(_worker(row) for row in workers.row(0)),
            held=tuple(_held(row) for row in held.row(0)),
            measured=measured.count(0),
            policy=policy.text(),
            policy_state={key: one.value for key, one in policy_state.items()},
        )


def _attempts(task: str, rows: Saved) -> tuple[TaskId, tuple[Attempt, ...]]:
    if not task.isdecimal():
        raise rows.error("the attempts at a task, under its number")
    found = []
    for row in rows.row(1):
        worker, message, traceback_text = (one.text() for one in row.row(3, 3))
        found.append(Attempt(WorkerName(worker), message, traceback_text))
    return TaskId(int(task)), tuple(found)


def _worker(saved: Saved) -> KnownWorker:
    name, device, first_round, tasks_done, busy_s, strikes = saved.row(6, 6)
    return KnownWorker(
        name=WorkerName(name.text()),
        device=device.text(),
        first_round=first_round.count(1),
        tasks_done=tasks_done.count(0),
        busy_s=busy_s.seconds(),
        strikes=strikes.count(0),
    )


def _held(saved: Saved) -> Held:
    name, refused, aside_s, why, *paused = saved.row(4, 5)
    return Held(
        name=WorkerName(name.text()),
        refused=refused.count(0),
        aside_s=aside_s.seconds(),
        why=why.text(),
        paused=any(one.count(0) for one in paused),
    )
