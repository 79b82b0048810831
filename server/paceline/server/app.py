"""The server: starts the parts of a run in order, and takes them down in order (assembly.py makes them).

One event loop owns the coordinator, the sessions and the books. The model has a thread, evaluation another, the ledger
a third, checkpoints a fourth; a round waits for the model's alone.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from paceline.callbacks import Callback
from paceline.coordination.effects import Finish, Outcome
from paceline.coordination.events import PauseRequested, StopRequested
from paceline.coordination.ids import WorkerName
from paceline.errors import PacelineError, UsageError
from paceline.loggers import make_loggers
from paceline.protos import coordinator_pb2 as pb
from paceline.server.address import check_listening, is_loopback_host, parse_bind
from paceline.server.announcing import announce
from paceline.server.assembly import assemble
from paceline.server.convert import OUTCOMES
from paceline.server.endpoint import Endpoint
from paceline.server.gate import VIEWERS, Gate
from paceline.server.greeting import message_bytes
from paceline.server.operations import Administration, RunOperations
from paceline.server.preparation import Preparation, prepare
from paceline.server.resuming import Resumed, take_up
from paceline.server.rundir import RunDir
from paceline.server.status import Situation
from paceline.server.summary import Ending
from paceline.server.telling import Telling
from paceline.server.tokenbook import TokenBook
from paceline.server.webpage import WebPage
from paceline.settings import RunSettings
from paceline.task_loading import samples_of
from paceline.tasks import is_validation, validation_samples
from paceline.tls import read_tls

# Workers get this long to take their goodbye.
LEAVE_LIMIT_S = 3.0
# An evaluation that nobody waits for any more gets this long to end.
EVALUATION_LIMIT_S = 2.0
HOUSEKEEPING_EVERY_S = 1.0
_SAMPLES_NAMED = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """What is known when workers may come.

    Attributes:
        address: where the server really listens.
        notes: of a run that is gone on with, and where its page is; one line each.
    """

    address: str
    run_dir: Path
    notes: tuple[str, ...]


OnStarted = Callable[[Started], None]


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
        callbacks: hear how the run goes, besides the loggers of the settings.

    Attributes:
        address: where it really listens; known after start.

    Raises:
        UsageError: a logger's library is not installed.
    """

    def __init__(
        self,
        settings: RunSettings,
        preparation: Preparation,
        resumed: Resumed | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self._settings = settings
        self._callbacks = (*callbacks, *make_loggers(settings.log))
        self._resumed = resumed
        self._notes: tuple[str, ...] = () if resumed is None else resumed.notes
        self._prepared = preparation
        self._bind = parse_bind(settings.bind, insecure=settings.insecure, tls=settings.tls_dir is not None)
        self._tls = read_tls(settings.tls_dir, "server") if settings.tls_dir is not None else None
        self._tokens = TokenBook(settings.tokens) if settings.tokens is not None else None
        self._log = structlog.get_logger()
        self.address = self._bind
        self._web: WebPage | None = None

    async def start(self) -> None:
        """Open the run directory and the port; from here on workers may come.

        Raises:
            UsageError: the port, the metrics port or the run directory cannot be had.
            SettingsError: reflection is asked for and not installed.
        """
        settings, prepared = self._settings, self._prepared
        self._gate = Gate(self._tokens, encrypted=self._tls is not None)
        self._endpoint = Endpoint(self._gate, message_bytes(settings, prepared), reflection=settings.reflection)
        self.address = self._endpoint.bind(self._bind, self._tls)
        resumed = self._resumed
        self._run_dir = RunDir.create(settings.run_dir, settings.job) if resumed is None else resumed.run_dir
        try:
            telling = Telling(self._callbacks, self._run_dir.path)
            self._parts = parts = assemble(settings, prepared, resumed, self._run_dir, self._gate)
            parts.tell(telling)
            parts.driver.final = self._explain
            self._open_page()
            parts.books.start(prepared.fingerprint.to_json(), prepared.initial_model)
        except BaseException:
            if self._web is not None:
                self._web.close()
            await self._endpoint.close()
            self._run_dir.discard()
            raise
        loop = asyncio.get_running_loop()
        for thread in parts.threads.all():
            thread.start(loop)
        operations = RunOperations(self.stop, parts.sessions.drain, self._pause, parts.checkpointing.now)
        administration = Administration(self._gate, operations)
        await self._endpoint.start(parts.sessions.handle, parts.transfers.handle, self._status, administration)
        self._housekeeper = asyncio.create_task(self._keep_house())
        announce(settings, self.address, self._tls, self._run_dir.path, self._notes)
        telling.start(settings, str(self.address), 0 if resumed is None else resumed.version)
        self._parts.driver.begin()
        if resumed is not None and prepared.rounds is not None and resumed.version >= prepared.rounds:
            self._parts.driver.post(StopRequested(f"{resumed.version} rounds are done", reached=True))

    async def run(self, on_started: OnStarted | None = None) -> RunResult:
        """Start, wait and close; see `serve`."""
        await self.start()
        try:
            if on_started is not None:
                on_started(Started(address=str(self.address), run_dir=self._run_dir.path, notes=self._notes))
            finish = await self.wait()
        except BaseException:
            self.stop("the server was told to stop")
            await self.close(await self.wait())
            raise
        return await self.close(finish)

    def stop(self, reason: str, grace_s: float = 0.0) -> None:
        """End the run, its state saved; the present round may take so long to close."""
        self._parts.driver.post(StopRequested(reason, grace_s=grace_s))

    async def wait(self) -> Finish:
        """Wait for the end of the run and tell the workers."""
        # Shielded: a caller that is cancelled must not cancel the end of the run.
        finish = await asyncio.shield(self._parts.driver.finished)
        away = [worker.name for worker in self._parts.driver.snapshot().workers if worker.state == "away"]
        self._parts.sessions.end_all(OUTCOMES[finish.outcome], finish.reason, away)
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
            await self._parts.checkpointing.finish(self._parts.driver.cut())
            fingerprint = await self._parts.training.finish(finish.outcome, path)
            finish = self._after_evaluation(finish)
            async with asyncio.timeout(LEAVE_LIMIT_S):
                await self._parts.sessions.all_left()
        except TimeoutError:
            pass
        except PacelineError as error:
            fault = error
        summary = self._parts.books.summary(
            Ending(
                outcome=finish.outcome,
                reason=finish.reason,
                metrics=self._parts.training.metrics,
                checkpoint=self._parts.books.totals.saves.version or None,
                model=path if fingerprint else None,
                fingerprint=fingerprint,
            )
        )
        told = finish if fault is None else dataclasses.replace(finish, outcome=Outcome.FAILED, reason=str(fault))
        # In a thread: callbacks may take a minute over it, and workers still have their goodbyes to fetch.
        await asyncio.to_thread(self._parts.books.telling.end, told, summary)
        await self._take_down()
        if fault is not None:
            raise fault
        if self._parts.driver.bug is not None:
            raise PacelineError(finish.reason) from self._parts.driver.bug
        return RunResult(
            outcome=finish.outcome,
            reason=finish.reason,
            detail=finish.detail,
            summary=summary,
            run_dir=self._run_dir.path,
            try_again=finish.try_again,
        )

    # ---- inside ------------------------------------------------------------------------------------------------------

    def _explain(self, finish: Finish) -> Finish:
        """Name the samples of the task that failed everywhere; show the user's traceback of a failed update."""
        settings = self._settings
        if finish.task is not None:
            known = self._prepared.fingerprint
            if is_validation(finish.task):
                ids = validation_samples(finish.task, settings.micro_batch, known.n_validation)
            else:
                dataset, size = self._prepared.dataset, settings.micro_batch
                ids = samples_of(dataset, settings.seed, finish.task, size, settings.partition)
            of_what = "the validation data" if is_validation(finish.task) else "the dataset"
            named = ", ".join(map(str, ids[:_SAMPLES_NAMED].tolist()))
            more = f" and {len(ids) - _SAMPLES_NAMED} more" if len(ids) > _SAMPLES_NAMED else ""
            return dataclasses.replace(finish, reason=f"{finish.reason} (samples {named}{more} of {of_what})")
        if finish.outcome is Outcome.FAILED and not finish.detail:
            return dataclasses.replace(finish, detail=self._parts.training.fault_traceback)
        return finish

    def _after_evaluation(self, finish: Finish) -> Finish:
        """A run whose last evaluation failed has failed; its model is saved all the same."""
        fault = self._parts.training.evaluation_fault
        if fault is None or finish.outcome is not Outcome.DONE:
            return finish
        return dataclasses.replace(finish, outcome=Outcome.FAILED, reason=fault.message, detail=fault.traceback_text)

    def _pause(self, name: str, paused: bool) -> None:
        if all(worker.name != name for worker in self._parts.driver.snapshot().workers):
            raise UsageError(f"no worker {name!r} was ever here: see `paceline status`")
        if paused and self._settings.partition:
            held = f"--partition {self._settings.partition}: data belong to workers, and rounds would wait for {name}"
            raise UsageError(f"{held}: expected `paceline drain`, after which a spare worker takes its part")
        self._parts.driver.post(PauseRequested(WorkerName(name), paused))

    def _open_page(self) -> None:
        settings, books = self._settings, self._parts.books
        if settings.web_port is not None:
            self._web = WebPage(
                lambda address, token: self._gate.look(address, token, VIEWERS),
                lambda has: books.picture(self._situation(), has),
            )
            # Nobody is on the way to a loopback address, and no browser knows the CA.
            tls = None if is_loopback_host(settings.web_host) else self._tls
            url = self._web.start(settings.web_host, settings.web_port, tls, tokens=settings.tokens is not None)
            self._notes += (f"live page: {url}",)

    async def _status(self) -> pb.StatusResponse:
        return self._parts.books.status(self._situation())

    def _situation(self) -> Situation:
        return Situation(
            rounds=self._prepared.rounds or 0,
            elapsed_s=self._parts.driver.now(),
            run_dir=str(self._run_dir.path),
            metrics=self._parts.training.metrics,
        )

    async def _keep_house(self) -> None:
        told = ""
        while True:
            self._parts.pool.check_speed()
            self._gate.look_again()
            snapshot = self._parts.driver.snapshot()
            waits = snapshot.situation if snapshot.state == "waiting" else ""
            if waits and waits != told:
                self._log.info(waits)
            told = waits
            self._parts.books.say_how_far(snapshot)
            await asyncio.sleep(HOUSEKEEPING_EVERY_S)

    async def _take_down(self) -> None:
        self._housekeeper.cancel()
        if self._web is not None:
            self._web.close()
        self._parts.driver.close()
        await self._endpoint.close()
        threads = self._parts.threads
        await threads.model.close()
        await threads.checkpoints.close()
        self._parts.books.close()
        # An evaluation whose result is wanted has ended; one that goes on must not hold up a Ctrl-C.
        await threads.evaluation.close(EVALUATION_LIMIT_S)
        self._run_dir.release()


def make_server(settings: RunSettings, resume: Path | None = None, callbacks: Sequence[Callback] = ()) -> Server:
    """Prepare a run, or what goes on with one; may take long, since it loads the data.

    Args:
        resume: directory of the run to go on with.
        callbacks: hear how the run goes.

    Raises:
        NothingToResume: that run is done.
        UsageError, SettingsError, CheckpointError: it cannot be; nothing was started.
    """
    check_listening(settings)
    if resume is None:
        return Server(settings, prepare(settings), callbacks=callbacks)
    earlier = take_up(resume, settings)
    try:
        prepared = prepare(earlier.to_build(settings))
        return Server(settings, prepared, earlier.resume(settings, prepared), callbacks)
    except BaseException:
        earlier.run_dir.release()
        raise


async def serve(settings: RunSettings, resume: Path | None = None, *, on_started: OnStarted | None = None) -> RunResult:
    """Serve one run to its end; if this is cancelled, the run is stopped and its state saved.

    Args:
        resume: directory of the run to go on with.
        on_started: called once workers may come.

    Raises:
        NothingToResume: the run to go on with is done.
        UsageError, SettingsError, CheckpointError: nothing was started.
        PacelineError: the run's state could not be saved, or a bug.
    """
    return await make_server(settings, resume).run(on_started)
