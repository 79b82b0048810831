"""Plays a scenario: a text of commands, each followed by the effects that it has, one per indented line.

    machine policy=fixed tasks=4 min_workers=2      the first command: settings of the machine
    join a | hello a [incarnation] | ready a        a worker comes
    report a 0 1 | fail a 0                         it finishes tasks, or fails one of its latest lease
    push a 0 1 | offer a 0 1 | verify               it pushes these tasks of a lease; in two steps
    end a [seconds] | drain a | cut a | resume a    it gives the lease up, asks to leave, loses its session, comes back
    alive a                                         it answers that it lives
    wait 1.5 | stop some reason                     time passes; somebody ends the run after the round

Lines that begin with # and empty lines stay as they are. In effects a session is shown as its worker's incarnation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from enum import Enum
from typing import Any

from paceline.coordination.effects import Effect, RoundRecord, SendGrant, SendLease, StagePush
from paceline.coordination.events import ProbeAnswered, StopRequested
from paceline.coordination.ids import LEASES_PER_LIFE, PushId
from tests.coordination.scene import Scene, Worker, of


def play(text: str) -> str:
    """Give the scenario with the effects that its commands really have."""
    lines: list[str] = []
    player: Player | None = None
    for line in text.splitlines():
        if line.startswith(" "):
            continue
        lines.append(line)
        words = line.split()
        if not words or line.startswith("#"):
            continue
        if words[0] == "machine":
            player = Player(dict(word.split("=") for word in words[1:]))
        else:
            assert player is not None, "a scenario begins with its machine"
            lines += [f"    {player.show(effect)}" for effect in player.do(words[0], words[1:])]
    return "\n".join(lines) + "\n"


class Player:
    """Carries out the commands of one scenario."""

    def __init__(self, settings: dict[str, str]) -> None:
        policy = settings.pop("policy")
        numbers: dict[str, Any] = {key: float(value) if "." in value else int(value) for key, value in settings.items()}
        self._scene = Scene(policy, **numbers)
        self._workers: dict[str, Worker] = {}
        self._names: dict[int, str] = {}
        self._push = PushId(0)

    def do(self, verb: str, words: list[str]) -> list[Effect]:
        """Carry out one command."""
        if verb == "wait":
            return self._scene.wait(float(words[0]))
        if verb == "verify":
            return self._scene.verify(self._push)
        if verb == "stop":
            return self._scene.do(StopRequested(" ".join(words), reached=True))
        if verb in ("join", "hello"):
            return self._come(verb, *words)
        worker, numbers = self._workers[words[0]], [float(word) for word in words[1:]]
        tasks = [int(number) for number in numbers]
        verbs: dict[str, Callable[[], list[Effect]]] = {
            "ready": worker.ready,
            "cut": worker.cut,
            "drain": worker.drain,
            "resume": lambda: self._resume(worker),
            "alive": lambda: self._scene.do(ProbeAnswered(worker.session)),
            "report": lambda: [effect for task in tasks for effect in worker.report(task, self._lease(worker, task))],
            "fail": lambda: worker.fail(tasks[0]),
            "end": lambda: worker.end(wasted_s=numbers[0] if numbers else 0.0),
            "push": lambda: worker.deliver(tasks, self._lease(worker, tasks[0])),
            "offer": lambda: self._offer(worker, tasks),
        }
        return verbs[verb]()

    def _come(self, verb: str, name: str, incarnation: str | None = None) -> list[Effect]:
        before = len(self._scene.log)
        worker = self._scene.newcomer(name, incarnation)
        self._workers[incarnation or name] = worker
        self._names[worker.session] = worker.incarnation
        if verb == "join":
            worker.ready()
        return self._scene.log[before:]

    def _resume(self, worker: Worker) -> list[Effect]:
        effects = worker.hello([order.lease for order in worker.leases if order.lease not in self._scene.over])
        self._names[worker.session] = worker.incarnation
        return effects

    def _offer(self, worker: Worker, tasks: list[int]) -> list[Effect]:
        effects = worker.offer(tasks, self._lease(worker, tasks[0]))
        self._push = next((order.push for order in of(effects, StagePush)), self._push)
        return effects

    def _lease(self, worker: Worker, task: int) -> SendLease:
        """Find the latest lease of a worker that was granted the task."""
        granted = {grant.lease for grant in of(self._scene.log, SendGrant) if task in grant.tasks}
        return next(order for order in reversed(worker.leases) if task in order.tasks or order.lease in granted)

    def show(self, effect: Effect) -> str:
        """Write an effect in one line."""
        if isinstance(effect, RoundRecord):
            workers = ", ".join(
                f"{w.name} used {w.used} ({w.used_s:g} s) wasted {w.wasted} ({w.wasted_s:g} s)" for w in effect.workers
            )
            stream = f"next task {effect.next_tasks[0]}, returned {_plain(effect.returned)}"
            return f"RoundRecord {effect.round} in {effect.seconds:g} s: {workers}; {stream}"
        fields = (self._field(field.name, getattr(effect, field.name)) for field in dataclasses.fields(effect))
        return " ".join([type(effect).__name__, *(field for field in fields if field)])

    def _field(self, name: str, value: object) -> str:
        if name == "session" and isinstance(value, int):
            return f"to {self._names.get(value, value)}"
        if name == "lease" and isinstance(value, int):
            return "lease {}.{}".format(*divmod(value, LEASES_PER_LIFE))
        if value is None or value in ("", ()) or value is False or name in ("results", "seconds", "incarnation"):
            return ""
        return f"{name} {_plain(value)}"


def _plain(value: object) -> str:
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return "[" + " ".join(_plain(item) for item in value) + "]"
    return str(value)
