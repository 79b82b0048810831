"""Puts the parts of one run's server together; nothing is started or written yet, but for the checkpoints' folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from paceline.coordination import Machine
from paceline.coordination import effects as fx
from paceline.coordination.policies import ASYNCHRONOUS, make_policy
from paceline.errors import JobImportError
from paceline.loading import users_code
from paceline.server.books import Books
from paceline.server.checkpointing import Checkpointing
from paceline.server.checkpoints import CheckpointStore
from paceline.server.convert import ManifestCheck
from paceline.server.driver import Action, Driver
from paceline.server.evaluations import Evaluations
from paceline.server.gate import Gate
from paceline.server.greeting import greeting
from paceline.server.keeper import BestKeeper
from paceline.server.model import ServerModel
from paceline.server.patience import Patience
from paceline.server.preparation import Preparation
from paceline.server.pushes import Pushes
from paceline.server.resuming import Resumed
from paceline.server.rundir import RunDir
from paceline.server.sessions import Sessions
from paceline.server.staging import StagePool
from paceline.server.telling import Telling
from paceline.server.traffic import Traffic
from paceline.server.training import Training
from paceline.server.transfer import Source, Transfers
from paceline.server.validations import Validations
from paceline.server.workthread import WorkThread
from paceline.settings import NEVER, RunSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Threads:
    """Who works beside the event loop: each does its calls in order."""

    model: WorkThread
    evaluation: WorkThread
    checkpoints: WorkThread

    def all(self) -> tuple[WorkThread, ...]:
        """Give each of them."""
        return self.model, self.evaluation, self.checkpoints


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of a server, connected."""

    driver: Driver
    threads: Threads
    model: ServerModel
    pool: StagePool
    sessions: Sessions
    transfers: Transfers
    training: Training
    checkpointing: Checkpointing
    books: Books

    def tell(self, telling: Telling) -> None:
        """Have callbacks told."""
        self.books.telling = telling


def assemble(
    settings: RunSettings, prepared: Preparation, resumed: Resumed | None, run_dir: RunDir, gate: Gate
) -> Parts:
    """Make all parts and tell them of one another.

    Args:
        resumed: what the run goes on from, None if it begins.

    Raises:
        CheckpointError: checkpoints cannot be written into the run directory.
        UsageError: the checkpoint does not fit the job.
    """
    driver = Driver(_machine(settings, prepared, resumed))
    threads = Threads(
        model=WorkThread("model", driver.crashed),
        evaluation=WorkThread("evaluation", driver.crashed),
        checkpoints=WorkThread("checkpoints", driver.crashed),
    )
    traffic = Traffic()
    model = ServerModel(prepared.flat, prepared.updater, prepared.layout, settings.inline_bytes)
    if resumed is not None and resumed.cut is not None:
        _restore(model, resumed)
    pool = StagePool(prepared.stages, settings.progress_s, driver.now)
    pushes = Pushes(model, threads.model, pool, ManifestCheck(prepared.layout), traffic)
    source = Source(prepared.flat, outlives=settings.policy in ASYNCHRONOUS)
    patience = _patience(settings)
    evaluations = _evaluations(settings, prepared, run_dir, model, threads)
    parts = Parts(
        driver=driver,
        threads=threads,
        model=model,
        pool=pool,
        sessions=Sessions(greeting(settings, prepared), pushes, traffic, gate),
        transfers=Transfers(source, pushes, traffic, gate),
        training=Training(driver, model, threads.model, evaluations, settings.goal(), patience),
        checkpointing=Checkpointing(
            driver, model, threads.model, threads.checkpoints, _store(settings, resumed, run_dir)
        ),
        books=Books(settings, run_dir, traffic, driver.snapshot, resumed, patience),
    )
    parts.checkpointing.connect(parts.books)
    parts.books.metrics.now = driver.now
    parts.training.heard = parts.books.evaluated
    for part in (pushes, parts.sessions, parts.transfers):
        part.connect(driver.post)
    actions = dict(_actions(parts, pushes))
    if isinstance(evaluations, Validations):
        evaluations.connect(driver)
        actions[fx.JudgeVersion] = evaluations.judge
    driver.connect(actions, parts.books)
    parts.training.connect(source, parts.sessions, pushes)
    return parts


def _restore(model: ServerModel, resumed: Resumed) -> None:
    try:
        with users_code("load_state_dict()"):
            model.restore(resumed.version, resumed.state)
    except JobImportError as error:
        message = f"checkpoint of round {resumed.version} does not fit optimizer, scheduler or job: {error}"
        raise JobImportError(message, error.traceback_text) from error


def _machine(settings: RunSettings, prepared: Preparation, resumed: Resumed | None) -> Machine:
    policy = make_policy(settings.policy, settings.policy_options(), rng=np.random.default_rng(settings.seed))
    life, cut = (1, None) if resumed is None else (resumed.life, resumed.cut)
    told = prepared.machine_settings(settings, settings.radius_constant(), life)
    return Machine(told, policy, cut)


def _store(settings: RunSettings, resumed: Resumed | None, run_dir: RunDir) -> CheckpointStore | None:
    saves = settings.interval() != NEVER
    if not saves and resumed is None:
        return None
    store = CheckpointStore(run_dir.checkpoints, settings.keep_checkpoints)
    if resumed is not None:
        # Before the ledger's rows become void: a later one could look usable again when these rounds are done anew.
        store.drop_after(resumed.version)
    return store if saves else None


def _patience(settings: RunSettings) -> Patience | None:
    best_by = settings.best_by()
    if settings.patience is None or best_by is None:
        return None
    return Patience(best_by[0], more=best_by[1], evaluations=settings.patience)


def _evaluations(
    settings: RunSettings, prepared: Preparation, run_dir: RunDir, model: ServerModel, threads: Threads
) -> Evaluations | Validations | None:
    best_by, best = settings.best_by(), None
    if best_by is not None and settings.interval() != NEVER:
        best = BestKeeper(run_dir.path, best_by[0], more=best_by[1], required=settings.best is not None)
    if prepared.validation_tasks:
        return Validations(prepared.job, prepared.flat, model, threads.model, best)
    copy, measure = prepared.evaluation_copy, prepared.measure
    if copy is None or measure is None:
        return None
    return Evaluations(measure, copy, model, threads.model, threads.evaluation, settings.evaluate_every(), best)


def _actions(parts: Parts, pushes: Pushes) -> Mapping[type, Action]:
    sessions = parts.sessions
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
        fx.ApplyUpdate: parts.training.apply,
        fx.SaveCheckpoint: parts.checkpointing.save,
    }
