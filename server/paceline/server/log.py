"""What the server tells its operator, on standard error: a line per thing that changed, none per round.

PACELINE_LOG=json writes JSON lines, for machines; anything else lines for people.
"""

from __future__ import annotations

import os
import sys

import structlog

from paceline.coordination.effects import Effect, Finish, Outcome, Refuse, RefusePush, RoundRecord, Warn, WorkerChanged

FORMAT_VARIABLE = "PACELINE_LOG"


def configure_logging(as_json: bool | None = None) -> None:
    """Send log lines to standard error; called once, when a process starts.

    Args:
        as_json: JSON lines; None: as the environment variable PACELINE_LOG says.
    """
    if as_json is None:
        as_json = os.environ.get(FORMAT_VARIABLE, "") == "json"
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
    """An observer that tells of workers, warnings, refusals, the first round and the end."""

    def __init__(self) -> None:
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger()
        self._began = False

    def observe(self, effect: Effect) -> None:
        """Tell of one effect, if people care for it."""
        if isinstance(effect, RoundRecord):
            if not self._began:
                self._began = True
                self._log.info("first round done", seconds=round(effect.seconds, 3), loss=effect.loss)
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

    def _finish(self, finish: Finish) -> None:
        tell = self._log.error if finish.outcome is Outcome.FAILED else self._log.info
        tell(f"run {finish.outcome.value}", reason=finish.reason)
        if finish.detail:
            self._log.error("the worker's traceback:\n" + finish.detail)
