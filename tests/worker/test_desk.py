"""Who waits at the desk hears a signal, also one that does not break the wait off."""

import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest

from paceline.worker.desk import Desk, Identity
from tests.system.cluster import until

DESK = Desk(
    "127.0.0.1:1",
    Identity(name="a", incarnation="0", host="here", pid=1, device="cpu", pace=1.0),
    say=lambda text: None,
)


class Interrupted(BaseException):
    """What the handler of a signal raises."""


@pytest.fixture
def interruptible() -> Iterator[None]:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, interrupt)
    yield
    signal.signal(signal.SIGUSR1, before)


def signal_beside(begun: threading.Event) -> None:
    """Take a signal on this thread: Python notes it for the main thread, and no system call of that one ends."""
    state = Path(f"/proc/self/task/{threading.main_thread().native_id}/stat")
    begun.wait(10)
    until(lambda: state.read_text().rpartition(")")[2].split()[0] == "S", "the main thread sleeps")
    signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)


def begin(wait: Callable[[], object], begun: threading.Event) -> None:
    begun.set()
    wait()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")
@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "wait", [DESK.next_step, lambda: DESK.wait_for(lambda: False), lambda: DESK.wait_for(lambda: False, 1000.0)]
)
@pytest.mark.usefixtures("interruptible")
def test_a_signal_that_breaks_no_wait_off_is_heard(wait: Callable[[], object]) -> None:
    begun = threading.Event()
    sender = threading.Thread(target=signal_beside, args=(begun,))
    sender.start()
    with pytest.raises(Interrupted):
        begin(wait, begun)
    sender.join()


def test_a_wait_ends_when_its_condition_holds_or_its_seconds_are_over() -> None:
    DESK.wait_for(lambda: True)
    DESK.wait_for(lambda: False, 0.01)
