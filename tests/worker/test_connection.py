"""The communication thread ends with its worker, whenever that is told to end."""

from __future__ import annotations

from typing import Any

import pytest

from paceline.worker.connection import Connection


class Silent:
    """Has nothing to say."""

    def over(self) -> bool:
        return False

    def unreachable(self) -> None:
        pass

    def failed(self, error: BaseException) -> None:
        pass


def connection() -> Connection:
    handler: Any = Silent()
    return Connection("127.0.0.1:1", "a" * 32, handler, 60.0)


def test_a_signal_while_it_starts_leaves_no_thread_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    made = connection()

    def interrupted(timeout: float | None = None) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(made._started, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            made.start()
    made.close()
    assert not made._thread.is_alive()


def test_one_that_was_never_started_can_be_closed() -> None:
    connection().close()
