"""What the server tells its operator, on standard error: a line per thing that changed, and how far it is.

Lines for people at a terminal, JSON lines elsewhere; PACELINE_LOG=json or text says otherwise.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import structlog

from paceline.coordination.effects import Effect, Finish, Outcome, Refuse, RefusePush, RoundRecord, Warn, WorkerChanged
from paceline.coordination.snapshot import Snapshot
from paceline.log_format import logs_json

# A line so often says how far a run is.
ROUND_EVERY_S = 5.0
# And that a run waits.
WAITING_EVERY_S = 60.0


def configure_logging(as_json: bool | None = None) -> None:
    """Send log lines to standard error; called once, when a process starts.

    Args:
        as_json: JSON lines; None: see `log_format.logs_json`.
    """
    if as_json is None:
        as_json = logs_json(sys.stderr)
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0)
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso" if as_json else "%H:%M:%S", utc=as_json),
            structlog.processors.format_exc_info,
            renderer,
        ],
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )


class RunLog:
    """An observer that tells of workers, warnings, refusals, rounds now and then, and the end.

    Args:
        now: clock, s.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger()
        self._now = now
        self._told_s: float | None = None
        self._said_s: float | None = None

    def observe(self, effect: Effect) -> None:
        """Tell of one effect, if people care for it."""
        if isinstance(effect, RoundRecord):
            self._round(effect)
        elif isinstance(effect, WorkerChanged):
            self._log.info(f"worker {effect.state}", worker=effect.name, reason=effect.reason)
        elif isinstance(effect, RefusePush):
            self._log.warning("push refused", reason=effect.rejection.value, message=effect.message)
        elif isinstance(effect, Refuse):
            self._log.warning("worker refused", code=effect.code.value, reason=effect.reason)
        elif isinstance(effect, Warn):
            self._log.warning(effect.text)
        elif isinstance(effect, Finish):
            self._finish(effect)

    def _round(self, record: RoundRecord) -> None:
        """Tell of the first round, and of one every ROUND_EVERY_S; of each, where they take longer."""
        now_s = self._now()
        if self._told_s is None:
            self._log.info("first round done", number=record.round, seconds=round(record.seconds, 3), loss=record.loss)
        elif now_s - self._told_s >= ROUND_EVERY_S:
            loss = round(record.loss, 5)
            self._log.info("round", number=record.round, loss=loss, seconds=round(record.seconds, 3))
        else:
            return
        self._told_s = now_s

    def say_how_far(self, snapshot: Snapshot) -> None:
        """Tell of the round in progress, where nothing was told for a while; to be called every second."""
        now_s = self._now()
        if self._said_s is None:
            self._said_s = now_s
        told_s = max(self._said_s, self._told_s or 0.0)
        # A second early, so that what is called every second is in time.
        wait_s = ROUND_EVERY_S - 1.0 if snapshot.state == "training" else WAITING_EVERY_S
        if now_s - told_s >= wait_s:
            self._log.info("in progress", number=snapshot.round, situation=snapshot.situation)
            self._said_s = now_s

    def _finish(self, finish: Finish) -> None:
        tell = self._log.error if finish.outcome is Outcome.FAILED else self._log.info
        tell(f"run {finish.outcome.value}", reason=finish.reason)
        if finish.detail:
            self._log.error("its traceback:\n" + finish.detail)
