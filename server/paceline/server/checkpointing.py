"""Has checkpoints saved while rounds go on: the coordinator's cut, the model and the books, all of one version.

A round waits for one copy of the model's state, made by the model thread between two updates; a thread of its own
writes it. A checkpoint is seen on the disk only when the ledger's rows up to its version are safe there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import structlog

from paceline.coordination.cut import Cut
from paceline.coordination.effects import SaveCheckpoint
from paceline.coordination.events import CheckpointRequested, CheckpointSaved
from paceline.errors import CheckpointError, PacelineError, UsageError
from paceline.server.books import Books
from paceline.server.checkpoints import CheckpointStore
from paceline.server.driver import Driver
from paceline.server.model import ModelSnapshot, ServerModel
from paceline.server.workthread import WorkThread
from paceline.tracebacks import describe

# So long may the ledger take to be safe on the disk.
LEDGER_LIMIT_S = 10.0


class Checkpointing:
    """The checkpoints of one run. Owned by the event loop.

    Args:
        driver: hears of what was saved.
        model, model_thread: the model, and the thread that alone touches it.
        writer: the thread that writes.
        store: where; None: nothing is saved.
    """

    def __init__(
        self,
        driver: Driver,
        model: ServerModel,
        model_thread: WorkThread,
        writer: WorkThread,
        store: CheckpointStore | None,
    ) -> None:
        self._driver = driver
        self._model = model
        self._model_thread = model_thread
        self._writer = writer
        self._store = store
        self._waiting: list[tuple[int, asyncio.Future[int]]] = []
        self._idle = asyncio.Event()
        self._idle.set()
        self._log = structlog.get_logger()

    def connect(self, books: Books) -> None:
        """Say which books belong into a checkpoint beside cut and model."""
        self._books = books
        self._saves = books.totals.saves

    def save(self, effect: SaveCheckpoint) -> None:
        """Have a cut saved; the model is at its version until the next update is submitted."""
        self._begin(effect.cut)

    async def now(self) -> int:
        """Save the present version and give its number.

        Raises:
            UsageError: this run saves none.
            CheckpointError: it could not be saved.
        """
        if self._store is None:
            raise UsageError("checkpoint-every is never: this run saves no checkpoints")
        version = self._driver.snapshot().version
        if version == self._saves.version and self._idle.is_set():
            return version
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append((version, future))
        self._driver.post(CheckpointRequested())
        return await future

    async def finish(self, cut: Cut | None) -> None:
        """Save the last cut, if it is not saved yet, and return when that is done; what fails is logged."""
        await self._idle.wait()
        if self._store is not None and cut is not None and cut.version > self._saves.version:
            self._begin(cut)
            await self._idle.wait()
        for _, future in self._waiting:
            if not future.done():
                future.set_exception(CheckpointError("the run is over"))

    def _begin(self, cut: Cut) -> None:
        if self._store is None:
            return
        self._idle.clear()
        began_s = time.monotonic()
        content = {"cut": cut.to_json(), **self._books.origin()}
        books = self._books.state()

        def copied(snapshot: ModelSnapshot | str) -> None:
            if not isinstance(snapshot, str) and snapshot.version != cut.version:
                snapshot = f"the model is at version {snapshot.version} already"
            if isinstance(snapshot, str):
                self._done(cut.version, began_s, snapshot)
                return
            write = partial(self._write, snapshot, {**snapshot.state, "books": books}, content)
            self._writer.submit(write, lambda fault: self._done(cut.version, began_s, fault))

        self._model_thread.submit(self._copy, copied)

    def _copy(self) -> ModelSnapshot | str:
        try:
            return self._model.snapshot()
        except (Exception, SystemExit) as error:  # the job's own code is asked for its state
            return f"the state could not be copied: {describe(error)}"

    def _write(self, snapshot: ModelSnapshot, state: Mapping[str, Any], content: Any) -> str:
        assert self._store is not None  # see _begin
        try:
            saved = self._store.save(
                snapshot.version, snapshot.weights, state, content, lambda: self._books.ledger_is_safe(LEDGER_LIMIT_S)
            )
        except PacelineError as error:
            return str(error)
        except Exception as error:
            return f"the state could not be written: {describe(error)}"
        if saved.remark:
            self._log.warning(saved.remark)
        return ""

    def _done(self, version: int, began_s: float, fault: str) -> None:
        self._idle.set()
        saves = self._saves
        if fault:
            saves.failed += 1
            self._log.error("checkpoint-failed", version=version, error=fault)
        else:
            saves.saved += 1
            saves.version, saves.at_s, saves.seconds = version, self._driver.now(), time.monotonic() - began_s
            self._log.info("checkpoint", version=version, seconds=round(saves.seconds, 3))
        for least, future in self._waiting:
            if not future.done() and least <= version:
                if fault:
                    future.set_exception(CheckpointError(fault))
                else:
                    future.set_result(version)
        self._waiting = [(least, future) for least, future in self._waiting if not future.done()]
        self._driver.post(CheckpointSaved(version, fault))
