"""All books of a run behind one face: ledger, sums, metrics, log, status and summary.

Its owner is the server's event loop, which hands it every effect of the coordinator. Nothing here waits for a disk or
a network while the run goes on.
"""

from __future__ import annotations

import dataclasses
import json
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from paceline.coordination.effects import (
    Effect,
    Finish,
    JudgeVersion,
    LeaseRecord,
    Refuse,
    RefusePush,
    RoundRecord,
    Warn,
    WorkerChanged,
)
from paceline.coordination.events import Hello
from paceline.coordination.snapshot import Snapshot
from paceline.protos import coordinator_pb2 as pb
from paceline.protos.framing import PROTOCOL_VERSION
from paceline.server.history import History
from paceline.server.ledger import Ledger
from paceline.server.log import RunLog
from paceline.server.metrics import Metrics
from paceline.server.patience import Patience
from paceline.server.picture import Cursor, Picture
from paceline.server.resuming import Resumed
from paceline.server.retelling import retell_file
from paceline.server.rundir import RunDir
from paceline.server.status import Situation, status_response
from paceline.server.summary import Ending, summary_document
from paceline.server.telling import Telling
from paceline.server.totals import Totals
from paceline.server.traffic import Traffic
from paceline.settings import RunSettings

_NOTED = frozenset((RoundRecord, LeaseRecord, JudgeVersion, WorkerChanged, Refuse, RefusePush, Warn, Finish))


class Books:
    """The books of one run. `start` and `close` belong together; all calls are the event loop's.

    Args:
        snapshot: of the coordinator.
        traffic: counted elsewhere, told here.
        resumed: what the run goes on from, None if it begins.
        patience: what it counts is kept with the books.

    Attributes:
        telling: tells callbacks; nobody unless another is put in its place.
    """

    def __init__(
        self,
        settings: RunSettings,
        run_dir: RunDir,
        traffic: Traffic,
        snapshot: Callable[[], Snapshot],
        resumed: Resumed | None = None,
        patience: Patience | None = None,
    ) -> None:
        self._patience = patience
        self._settings = settings
        self._run_dir = run_dir
        self._traffic = traffic
        self._snapshot = snapshot
        self._resumed = resumed
        life, version = (1, None) if resumed is None else (resumed.life, resumed.version)
        if life == 1:
            version = None  # also of a server that was killed before it had made a ledger
        self._ledger = Ledger(run_dir.ledger, settings.model_dump_json(), life, version)
        self._log = RunLog()
        self.telling = Telling((), run_dir.path)
        self.totals = Totals()
        if resumed is not None and resumed.state:
            self._restore(resumed.state["books"])
        self.metrics = Metrics(self.totals, snapshot, traffic, settings.policy)
        self.metrics.prices, self.metrics.tasks = settings.price, settings.tasks_of_round()
        self.metrics.waiting_rows = lambda: self._ledger.waiting
        # Kept for the live page alone.
        self._history: History | None = None
        if settings.web_port is not None:
            self._history = History(settings.radius_constant())
            self._picture = Picture(settings, self.totals, self._history, secrets.randbelow(2**31))
            if version:
                retell_file(run_dir.ledger, self._history, version)

    def start(self, job_fingerprint_json: str, initial_model: str) -> None:
        """Open everything: the metrics port first, since it is the likeliest to fail and leaves nothing behind.

        Args:
            initial_model: fingerprint of the parameters that the run begins with.

        Raises:
            UsageError: the metrics port is taken, or the run directory cannot be written or was taken meanwhile.
            RunFailedError: the ledger cannot be made.
        """
        if self._settings.metrics_port is not None:
            self.metrics.start(self._settings.metrics_host.strip("[]"), self._settings.metrics_port)
        try:
            settings = self._settings.model_dump(mode="json")
            if self._resumed is None:
                fingerprint = json.loads(job_fingerprint_json)
                self._run_dir.write_settings(settings, fingerprint, initial_model, PROTOCOL_VERSION)
            else:
                entry = {"life": self._resumed.life, "from_round": self._resumed.version}
                self._run_dir.write_resumed(settings, entry)
            self._ledger.start()
        except Exception:
            self.metrics.close()
            raise

    def hello(self, hello: Hello, now_s: float) -> None:
        """Note who a worker is, when it says hello."""
        self._ledger.hello(hello, now_s)

    def observe(self, effect: Effect, now_s: float) -> None:
        """Note one effect, if it belongs into any book."""
        if type(effect) in _NOTED:
            self._ledger.observe(effect, now_s)
            self.totals.observe(effect)
            if self._history is not None and isinstance(effect, RoundRecord):
                self._history.add(effect)
            self._log.observe(effect)
            self.telling.observe(effect)

    def evaluated(self, version: int, metrics: Mapping[str, float]) -> None:
        """Note what a version was found to be."""
        self._ledger.evaluated(version, metrics, self.metrics.now())
        self.metrics.evaluation = dict(metrics)
        if self._history is not None:
            self._history.evaluated(version, metrics)
        self.telling.evaluated(version, metrics)

    def state(self) -> dict[str, Any]:
        """Give what goes on counting in a later life, for a checkpoint."""
        patience = {} if self._patience is None else self._patience.state()
        return {"totals": self.totals.state(), "traffic": dataclasses.asdict(self._traffic), "patience": patience}

    def origin(self) -> dict[str, Any]:
        """Say of which life and settings a checkpoint is, and up to which round the ledger must be there; JSON."""
        life = 1 if self._resumed is None else self._resumed.life
        return {"life": life, "ledger_round": self.totals.version, "settings": self._settings.model_dump(mode="json")}

    def ledger_is_safe(self, timeout_s: float) -> bool:
        """Wait until all that was observed is safe on the disk; to be asked from another thread than the loop's."""
        return self._ledger.barrier(timeout_s)

    def status(self, situation: Situation) -> pb.StatusResponse:
        """Answer a Status call."""
        return status_response(self._settings, self.totals, self._snapshot(), situation)

    def picture(self, situation: Situation, has: Cursor) -> dict[str, Any]:
        """Give the live page what is new for it; only where the settings name a port for one."""
        return self._picture.document(self._snapshot(), situation, has)

    def say_how_far(self, snapshot: Snapshot) -> None:
        """Have the log say how far the run is, where it has not for a while."""
        self._log.say_how_far(snapshot)

    def summary(self, ending: Ending) -> dict[str, Any]:
        """Give the document of `paceline run --json`."""
        return summary_document(self._settings, self.totals, self._traffic, self._snapshot(), ending)

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.totals.restore(state["totals"])
        for name, count in state["traffic"].items():
            setattr(self._traffic, name, count)
        if self._patience is not None and state["patience"]:
            self._patience.restore(state["patience"])

    def close(self) -> None:
        """Stop serving metrics and write what the ledger still holds back.

        Raises:
            RunFailedError: the ledger could not be written.
        """
        self.metrics.close()
        self._ledger.close()
