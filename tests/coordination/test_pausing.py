"""A worker whose machine is wanted for something else: it ends what it holds, and gets nothing until it is resumed."""

from __future__ import annotations

from dataclasses import replace

from paceline.coordination.cut import Cut
from paceline.coordination.effects import SendLease, WorkerChanged
from tests.coordination.scene import Scene, Worker, of

STILL = 1e6


def scene_of(policy: str = "fixed") -> tuple[Scene, Worker, Worker]:
    scene = Scene(policy, min_workers=2, silent_after_s=STILL, progress_s=STILL)
    return scene, scene.join("a"), scene.join("b")


def state_of(scene: Scene, name: str) -> str:
    return next(worker.state for worker in scene.machine.machine.snapshot(scene.now).workers if worker.name == name)


def leased(scene: Scene, worker: Worker) -> int:
    return len([order for order in of(scene.log, SendLease) if order.session == worker.session])


def test_what_it_holds_is_ended_and_the_next_round_is_the_others() -> None:
    scene, a, b = scene_of()
    a.pause()
    assert state_of(scene, "a") == "paused"
    a.work()
    b.work()
    assert (leased(scene, a), leased(scene, b)) == (1, 2)
    b.work()
    assert scene.machine.machine.snapshot(scene.now).version == 2
    a.pause(paused=False)
    b.work()
    assert (leased(scene, a), state_of(scene, "a")) == (2, "busy")
    assert [change.state for change in of(scene.log, WorkerChanged) if change.name == "a"][-2:] == ["paused", "ready"]


def test_with_all_of_them_paused_the_run_waits_and_says_so() -> None:
    scene, a, b = scene_of()
    a.pause()
    b.pause()
    a.work()
    b.work()
    found = scene.machine.machine.snapshot(scene.now)
    assert (found.state, found.situation) == ("waiting", "waiting for a worker: 2 are paused")
    b.pause(paused=False)
    b.work()
    assert scene.machine.machine.snapshot(scene.now).version == 2


def test_a_pause_belongs_to_the_name() -> None:
    scene, a, b = scene_of()
    a.pause()
    a.work()
    a.drain()
    b.work()
    again = scene.join("a")
    assert state_of(scene, "a") == "paused"
    b.work()
    assert leased(scene, again) == 0


def test_a_paused_worker_may_leave_and_saying_it_twice_is_the_same() -> None:
    scene, a, b = scene_of()
    a.pause()
    a.pause()
    a.work()
    assert [change.state for change in of(scene.log, WorkerChanged) if change.name == "a"].count("paused") == 1
    a.drain()
    assert state_of(scene, "a") == "left"
    b.work()


def test_a_pause_outlives_the_server() -> None:
    scene, a, b = scene_of()
    a.pause()
    a.work()
    b.work()
    cut = scene.machine.machine.cut(scene.now)
    assert cut is not None
    read = Cut.from_json(cut.to_json())
    assert read == cut
    assert [(held.name, held.paused) for held in read.held] == [("a", True)]
    # A cut of before there were pauses.
    older = cut.to_json()
    assert isinstance(older, dict)
    older["held"] = [row[:4] for row in older["held"]]
    assert Cut.from_json(older) == replace(cut, held=(replace(cut.held[0], paused=False),))
