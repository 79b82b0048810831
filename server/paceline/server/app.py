"""The server: puts the parts of a run together, starts them in order, and takes them down in order.

One event loop owns the coordinator, the sessions and the books. The model has a thread, evaluation another, the ledger
a third; a round waits for the model's alone.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from paceline.allocation import constant_for
from paceline.coordination import Machine
from paceline.coordination import effects as fx
from paceline.coordination.effects import Finish, Outcome
from paceline.coordination.events import StopRequested
from paceline.coordination.policies import ASYNCHRONOUS, make_policy
from paceline.errors import PacelineError
from paceline.protos import coordinator_pb2 as pb
from paceline.protos.framing import CHUNK_BYTES, PROTOCOL_VERSION, crc32c
from paceline.protos.memory import tune_malloc
from paceline.server.address import check_listening, parse_bind
from paceline.server.books import Books
from paceline.server.checkpointing import Checkpointing
from paceline.server.checkpoints import CheckpointStore
from paceline.server.convert import OUTCOMES, ManifestCheck
from paceline.server.driver import Action, Driver
from paceline.server.endpoint import Endpoint
from paceline.server.evaluations import Evaluations
from paceline.server.gate import Gate
from paceline.server.keeper import BestKeeper
from paceline.server.model import ServerModel
from paceline.server.operations import Administration, RunOperations
from paceline.server.preparation import Preparation, prepare, raise_descriptor_limit
from paceline.server.pushes import Pushes
from paceline.server.resuming import Resumed, take_up
from paceline.server.rundir import RunDir
from paceline.server.sessions import Greeting, Sessions
from paceline.server.staging import StagePool
from paceline.server.status import Situation
from paceline.server.summary import Ending
from paceline.server.tokenbook import TokenBook
from paceline.server.traffic import Traffic
from paceline.server.training import Training
from paceline.server.transfer import Source, Transfers
from paceline.server.workthread import WorkThread
from paceline.settings import NEVER, RunSettings
from paceline.tasks import task_samples
from paceline.tls import read_tls
from paceline.version import __version__

# Workers get this long to take their goodbye.
LEAVE_LIMIT_S = 3.0
# An evaluation that nobody waits for any more gets this long to end.
EVALUATION_LIMIT_S = 2.0
HOUSEKEEPING_EVERY_S = 1.0
EXPIRES_SOON = datetime.timedelta(days=14)
_SAMPLES_NAMED = 12
_UNCOUNTED = ("malenia", "mindflayer")
# What a stranger on the network can do, without tokens and with them.
_DANGER = (
    "join this run, read the model and change it",
    "be let in with a token only, but who is on the way can read tokens and the model",
)

OnStarted = Callable[[str, Path], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """How a run ended.

    Attributes:
        reason: one line.
        detail: traceback of the worker or of the job's own code, where that is the reason.
        summary: the document of `paceline run --json`.
        try_again: it was stopped for want of workers.
        signal: the one that ended it, 0 for none.
    """

    outcome: Outcome
    reason: str
    detail: str
    summary: dict[str, Any]
    run_dir: Path
    try_again: bool = False
    signal: int = 0


class Server:
    """One run's server: `run`, or `start`, `wait` and `close`.

    Args:
        settings: everything it is told.
        preparation: what `prepare(settings)` gave.
        resumed: what it goes on from, which `preparation` was brought to; None: the run begins.

    Attributes:
        address: where it really listens; known after start.
    """

    def __init__(self, settings: RunSettings, preparation: Preparation, resumed: Resumed | None = None) -> None:
        self._settings = settings
        self._resumed = resumed
        self._prepared = preparation
        self._bind = parse_bind(settings.bind, insecure=settings.insecure, tls=settings.tls_dir is not None)
        self._tls = read_tls(settings.tls_dir, "server") if settings.tls_dir is not None else None
        self._tokens = TokenBook(settings.tokens) if settings.tokens is not None else None
        self._traffic = Traffic()
        self._log = structlog.get_logger()
        self.address = self._bind

    async def start(self) -> None:
        """Open the run directory and the port; from here on workers may come.

        Raises:
            UsageError: the port, the metrics port or the run directory cannot be had.
            SettingsError: reflection is asked for and not installed.
        """
        settings, prepared = self._settings, self._prepared
        self._gate = Gate(self._tokens, encrypted=self._tls is not None)
        self._endpoint = Endpoint(self._gate, _message_bytes(settings, prepared), reflection=settings.reflection)
        self.address = self._endpoint.bind(self._bind, self._tls)
        resumed = self._resumed
        self._run_dir = RunDir.create(settings.run_dir, settings.job) if resumed is None else resumed.run_dir
        try:
            self._assemble(settings, prepared)
            self._books.start(prepared.fingerprint.to_json(), prepared.initial_model)
        except BaseException:
            await self._endpoint.close()
            self._run_dir.discard()
            raise
        loop = asyncio.get_running_loop()
        for thread in self._threads:
            thread.start(loop)
        operations = RunOperations(self.stop, self._sessions.drain, self._checkpointing.now)
        administration = Administration(self._gate, operations)
        await self._endpoint.start(self._sessions.handle, self._transfers.handle, self._status, administration)
        self._housekeeper = asyncio.create_task(self._keep_house())
        self._announce()
        self._driver.begin()
        if resumed is not None and prepared.rounds is not None and resumed.version >= prepared.rounds:
            self._driver.post(StopRequested(f"{resumed.version} rounds are done", reached=True))

    async def run(self, on_started: OnStarted | None = None) -> RunResult:
        """Start, wait and close; see `serve`."""
        await self.start()
        try:
            if on_started is not None:
                on_started(str(self.address), self._run_dir.path)
            finish = await self.wait()
        except BaseException:
            self.stop("the server was told to stop")
            await self.close(await self.wait())
            raise
        return await self.close(finish)

    def stop(self, reason: str, grace_s: float = 0.0) -> None:
        """End the run, its state saved; the present round may take so long to close."""
        self._driver.post(StopRequested(reason, grace_s=grace_s))

    async def wait(self) -> Finish:
        """Wait for the end of the run and tell the workers."""
        # Shielded: a caller that is cancelled must not cancel the end of the run.
        finish = await asyncio.shield(self._driver.finished)
        away = [worker.name for worker in self._driver.snapshot().workers if worker.state == "away"]
        self._sessions.end_all(OUTCOMES[finish.outcome], finish.reason, away)
        return finish

    async def close(self, finish: Finish) -> RunResult:
        """Save the model, let the workers leave, close everything.

        Raises:
            PacelineError: a bug of ours ended the run, or the books or the model could not be written.
        """
        path = self._run_dir.model
        fault: PacelineError | None = None
        fingerprint = ""
        try:
            await self._checkpointing.finish(self._driver.cut())
            fingerprint = await self._training.finish(finish.outcome, path)
            finish = self._after_evaluation(finish)
            async with asyncio.timeout(LEAVE_LIMIT_S):
                await self._sessions.all_left()
        except TimeoutError:
            pass
        except PacelineError as error:
            fault = error
        summary = self._books.summary(
            Ending(
                outcome=finish.outcome,
                reason=finish.reason,
                metrics=self._training.metrics,
                checkpoint=self._books.totals.saves.version or None,
                model=path if fingerprint else None,
                fingerprint=fingerprint,
            )
        )
        await self._take_down()
        if fault is not None:
            raise fault
        if self._driver.bug is not None:
            raise PacelineError(finish.reason) from self._driver.bug
        return RunResult(
            outcome=finish.outcome,
            reason=finish.reason,
            detail=finish.detail,
            summary=summary,
            run_dir=self._run_dir.path,
            try_again=finish.try_again,
        )

    # ---- inside ------------------------------------------------------------------------------------------------------

    def _assemble(self, settings: RunSettings, prepared: Preparation) -> None:
        policy = make_policy(settings.policy, settings.policy_options(), rng=np.random.default_rng(settings.seed))
        radius_constant = constant_for("ata-empirical", settings.constants)
        resumed = self._resumed
        cut = None if resumed is None else resumed.cut
        life = 1 if resumed is None else resumed.life
        machine = Machine(prepared.machine_settings(settings, radius_constant, life), policy, cut)
        self._driver = driver = Driver(machine)
        driver.final = self._explain
        thread = WorkThread("model", driver.crashed)
        self._model = model = ServerModel(prepared.flat, prepared.updater, prepared.layout, settings.inline_bytes)
        if resumed is not None and resumed.cut is not None:
            model.restore(resumed.version, resumed.state)
        evaluator = WorkThread("evaluation", driver.crashed)
        writer = WorkThread("checkpoints", driver.crashed)
        store = None
        if settings.interval() != NEVER or resumed is not None:
            store = CheckpointStore(self._run_dir.checkpoints, settings.keep_checkpoints)
        if store is not None and resumed is not None:
            # Before the ledger's rows become void: a later one could look usable again when these rounds are redone.
            store.drop_after(resumed.version)
        if settings.interval() == NEVER:
            store = None
        self._checkpointing = Checkpointing(driver, model, thread, writer, store)
        evaluations = None
        if prepared.evaluation_copy is not None:
            best_by = settings.best_by()
            every = settings.eval_every or (1 if best_by is not None else 0)
            best = None
            if best_by is not None and settings.interval() != NEVER:
                best = BestKeeper(self._run_dir.path, best_by[0], more=best_by[1], required=settings.best is not None)
            evaluations = Evaluations(prepared.job, prepared.evaluation_copy, model, thread, evaluator, every, best)
        self._threads = (thread, evaluator, writer)
        self._pool = StagePool(prepared.stages, settings.progress_s, driver.now)
        pushes = Pushes(model, thread, self._pool, ManifestCheck(prepared.layout), self._traffic)
        source = Source(prepared.flat, outlives=settings.policy in ASYNCHRONOUS)
        self._sessions = Sessions(_greeting(settings, prepared), pushes, self._traffic, self._gate)
        self._transfers = Transfers(source, pushes, self._traffic, self._gate)
        self._training = Training(driver, model, thread, evaluations, settings.goal())
        self._books = Books(settings, self._run_dir, self._traffic, driver.snapshot, resumed)
        self._checkpointing.connect(self._books)
        self._books.metrics.now = driver.now
        for part in (pushes, self._sessions, self._transfers):
            part.connect(driver.post)
        driver.connect(_actions(self._sessions, pushes, self._training, self._checkpointing), self._books)
        self._training.connect(source, self._sessions, pushes)

    def _explain(self, finish: Finish) -> Finish:
        """Name the samples of the task that failed everywhere; show the user's traceback of a failed update."""
        settings = self._settings
        if finish.task is not None:
            ids = task_samples(
                settings.seed,
                finish.task,
                settings.micro_batch,
                self._prepared.fingerprint.n_samples,
                settings.partition,
            )
            named = ", ".join(map(str, ids[:_SAMPLES_NAMED].tolist()))
            more = f" and {len(ids) - _SAMPLES_NAMED} more" if len(ids) > _SAMPLES_NAMED else ""
            return dataclasses.replace(finish, reason=f"{finish.reason} (samples {named}{more} of the dataset)")
        if finish.outcome is Outcome.FAILED and not finish.detail:
            return dataclasses.replace(finish, detail=self._training.fault_traceback)
        return finish

    def _after_evaluation(self, finish: Finish) -> Finish:
        """A run whose last evaluation failed has failed; its model is saved all the same."""
        fault = self._training.evaluation_fault
        if fault is None or finish.outcome is not Outcome.DONE:
            return finish
        return dataclasses.replace(finish, outcome=Outcome.FAILED, reason=fault.message, detail=fault.traceback_text)

    async def _status(self) -> pb.StatusResponse:
        situation = Situation(
            rounds=self._prepared.rounds or 0,
            elapsed_s=self._driver.now(),
            run_dir=str(self._run_dir.path),
            metrics=self._training.metrics,
        )
        return self._books.status(situation)

    async def _keep_house(self) -> None:
        told = ""
        while True:
            self._pool.check_speed()
            self._gate.look_again()
            snapshot = self._driver.snapshot()
            waits = snapshot.situation if snapshot.state == "waiting" else ""
            if waits and waits != told:
                self._log.info(waits)
            told = waits
            await asyncio.sleep(HOUSEKEEPING_EVERY_S)

    def _announce(self) -> None:
        self._log.info(
            f"paceline {__version__} serves {self._settings.job} on {self.address}", run_dir=str(self._run_dir.path)
        )
        for note in () if self._resumed is None else self._resumed.notes:
            self._log.info(note)
        self._log.info(tune_malloc())
        self._log.info(raise_descriptor_limit())
        if self._tls is not None:
            self._log.info(f"TLS: only who has a certificate of {self._tls.ca_path} is heard")
            if self._tls.ends - datetime.datetime.now(datetime.UTC) < EXPIRES_SOON:
                self._log.warning(f"certificates in {self._tls.folder} expire at {self._tls.ends:%Y-%m-%d %H:%M} UTC")
        elif not self._bind.is_loopback:
            self._log.warning(
                f"INSECURE: whoever can reach {self.address} can {_DANGER[self._tokens is not None]}; "
                "nothing is encrypted (--insecure)"
            )
        if self._tokens is not None:
            self._log.info(f"tokens: only who has one of {self._settings.tokens} is let in")

    async def _take_down(self) -> None:
        self._housekeeper.cancel()
        self._driver.close()
        await self._endpoint.close()
        model, evaluator, writer = self._threads
        await model.close()
        await writer.close()
        self._books.close()
        # An evaluation whose result is wanted has ended; one that goes on must not hold up a Ctrl-C.
        await evaluator.close(EVALUATION_LIMIT_S)
        self._run_dir.release()


def _message_bytes(settings: RunSettings, prepared: Preparation) -> int:
    """Give the size of the largest message that a worker may have to send."""
    # Beside a chunk or payload: a traceback, the fingerprint of another job, and 40 bytes for each task of a manifest.
    # Where a round's tasks are not counted, the fastest worker may do many.
    tasks = max(settings.tasks, 65_536) if settings.policy in _UNCOUNTED else settings.tasks
    names = 4 * len(prepared.fingerprint.to_json())
    return max(CHUNK_BYTES, settings.inline_bytes) + 2**20 + names + 40 * tasks


def _greeting(settings: RunSettings, prepared: Preparation) -> Greeting:
    layout = prepared.flat.layout
    constants = (
        bytes(prepared.flat.constants_view) if layout.nbytes - layout.version_nbytes <= settings.inline_bytes else b""
    )
    return Greeting(
        welcome=pb.Welcome(
            protocol_version=PROTOCOL_VERSION,
            package_version=__version__,
            job=settings.job,
            settings_json=settings.shared().model_dump_json(),
            job_fingerprint_json=prepared.fingerprint.to_json(),
            version_bytes=layout.version_nbytes,
            constants_bytes=layout.nbytes - layout.version_nbytes,
            constants=constants,
            constants_crc32c=crc32c(constants) if constants else 0,
        ),
        fingerprint=prepared.fingerprint,
    )


def _actions(
    sessions: Sessions, pushes: Pushes, training: Training, checkpointing: Checkpointing
) -> Mapping[type, Action]:
    return {
        fx.Welcome: sessions.welcome,
        fx.Refuse: sessions.refuse,
        fx.Probe: sessions.probe,
        fx.SendLease: sessions.lease,
        fx.SendGrant: sessions.grant,
        fx.SendVerdict: sessions.verdict,
        fx.SendCollect: sessions.collect,
        fx.SendCancel: sessions.cancel,
        fx.Goodbye: sessions.goodbye,
        fx.CloseSession: sessions.close,
        fx.WorkerChanged: sessions.worker_changed,
        fx.StagePush: pushes.stage,
        fx.RefusePush: pushes.refuse,
        fx.AddContribution: pushes.add,
        fx.AcknowledgePush: pushes.acknowledge,
        fx.ApplyUpdate: training.apply,
        fx.SaveCheckpoint: checkpointing.save,
    }


def make_server(settings: RunSettings, resume: Path | None = None) -> Server:
    """Prepare a run, or what goes on with one; may take long, since it loads the data.

    Args:
        resume: directory of the run to go on with.

    Raises:
        NothingToResume: that run is done.
        UsageError, SettingsError, CheckpointError: it cannot be; nothing was started.
    """
    check_listening(settings)
    if resume is None:
        return Server(settings, prepare(settings))
    earlier = take_up(resume, settings)
    prepared = prepare(earlier.to_build(settings))
    return Server(settings, prepared, earlier.resume(settings, prepared))


async def serve(settings: RunSettings, resume: Path | None = None, *, on_started: OnStarted | None = None) -> RunResult:
    """Serve one run to its end; if this is cancelled, the run is stopped and its state saved.

    Args:
        resume: directory of the run to go on with.
        on_started: told the real address and the run directory, once workers may come.

    Raises:
        NothingToResume: the run to go on with is done.
        UsageError, SettingsError, CheckpointError: nothing was started.
        PacelineError: the run's state could not be saved, or a bug.
    """
    return await make_server(settings, resume).run(on_started)
