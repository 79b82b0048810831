"""The settings of each command: those of server and worker, and what only the command itself needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from paceline.coordination.policies import EMPLOYING
from paceline.durations import parse_duration
from paceline.errors import SettingsError, UsageError
from paceline.settings import CACHE_BYTES, Count, RunSettings, WorkerSettings


class ServerCommand(RunSettings):
    """What `paceline server` is told.

    Attributes:
        json_file: the summary of the run is written there at its end.
        resume: directory of the run to go on with; its settings are the defaults.
    """

    not_offered: ClassVar[frozenset[str]] = frozenset()

    json_file: Path | None = None
    resume: Path | None = None

    @field_validator("grace_s", "idle_exit_s", mode="before")
    @classmethod
    def _spans_parse(cls, value: object, info: ValidationInfo) -> object:
        if not isinstance(value, str):
            return value
        name = str(info.field_name).removesuffix("_s").replace("_", "-")
        return None if value == "never" and name == "idle-exit" else parse_duration(value, name)

    @field_validator("checkpoint_every", mode="before")
    @classmethod
    def _interval_is_text(cls, value: object) -> str:
        return str(value)

    @field_validator("constants", mode="before")
    @classmethod
    def _constants_are_text(cls, value: object) -> str:
        # A settings file may have a number there.
        return str(value)

    @field_validator("means_s", mode="before")
    @classmethod
    def _means_parse(cls, value: object) -> object:
        return parse_means(value)

    @field_validator("price", mode="before")
    @classmethod
    def _prices_parse(cls, value: object) -> object:
        return parse_prices(value)

    def run_settings(self, **changes: object) -> RunSettings:
        """Give the server's part, with changes."""
        values = {name: getattr(self, name) for name in RunSettings.model_fields}
        return RunSettings.model_validate(values | changes)


class OwnWorkersCommand(ServerCommand):
    """What a command is told that starts a server and its workers.

    Attributes:
        workers: how many; they are called w1, w2, ...
    """

    # The server is for its own workers, and waits for them.
    not_offered: ClassVar[frozenset[str]] = frozenset(
        {"bind", "insecure", "tls_dir", "tokens", "min_workers", "web_host"}
    )

    workers: Count = 2

    @model_validator(mode="after")
    def _workers_are_enough(self) -> Self:
        if self.policy in EMPLOYING and self.tasks > self.workers:
            what = f"policy {self.policy} waits for as many workers as tasks"
            raise SettingsError(
                f"tasks is {self.tasks} for {self.workers} workers: {what}, so expected at most {self.workers}"
            )
        if self.partition > self.workers:
            raise SettingsError(f"partition is {self.partition} for {self.workers} workers: each part needs its own")
        names = self.worker_names()
        unknown = [name for name in self.means_s or {} if name not in names]
        if unknown:
            raise UsageError(f"--means names {unknown[0]!r}: expected workers of this run, {names[0]} to {names[-1]}")
        return self

    def worker_names(self) -> tuple[str, ...]:
        """Name the workers."""
        return tuple(f"w{number}" for number in range(1, self.workers + 1))


class RunCommand(OwnWorkersCommand):
    """What `paceline run` is told: a server's settings, and those of the workers it starts on this machine.

    Attributes:
        pace: one per worker, or one for all.
        delay: laws, one per worker, or one for all.
        delay_seed: of the delays' draws; None: fresh.
        loaders, loader_limit_s, cache, cache_bytes: of each worker, see settings.WorkerSettings.
    """

    pace: tuple[float, ...] = (1.0,)
    delay: tuple[str, ...] | None = None
    delay_seed: int | None = Field(default=None, ge=0)
    loaders: int | None = Field(default=None, ge=0, le=256)
    loader_limit_s: float = Field(default=60.0, gt=0)
    cache: Path | None = None
    cache_bytes: int = Field(default=CACHE_BYTES, ge=1)

    @field_validator("pace", mode="before")
    @classmethod
    def _paces_parse(cls, value: object) -> object:
        from paceline.laws import parse_paces

        return parse_paces(joined(value))

    @field_validator("delay", mode="before")
    @classmethod
    def _delays_parse(cls, value: object) -> object:
        from paceline.laws import parse_laws

        if value is None:
            return None
        text = joined(value)
        parse_laws(text)
        return tuple(part.strip() for part in text.split(","))

    @model_validator(mode="after")
    def _workers_have_theirs(self) -> RunCommand:
        from paceline.laws import per_worker

        per_worker(self.pace, self.workers, "--pace")
        per_worker(self.delay or ("",), self.workers, "--delay")
        return self

    def worker_settings(self, server: str) -> tuple[WorkerSettings, ...]:
        """Give each worker its settings, in the order of their names."""
        from paceline.laws import per_worker

        paces = per_worker(self.pace, self.workers, "--pace")
        delays = per_worker(self.delay or (None,), self.workers, "--delay")
        return tuple(
            WorkerSettings(
                server=server,
                job=self.job,
                data=self.data,
                name=name,
                device=self.device,
                pace=pace,
                delay=delay,
                delay_seed=self.delay_seed,
                loaders=self.loaders,
                loader_limit_s=self.loader_limit_s,
                cache=self.cache,
                cache_bytes=self.cache_bytes,
            )
            for name, pace, delay in zip(self.worker_names(), paces, delays, strict=True)
        )


class RayCommand(OwnWorkersCommand):
    """What `paceline ray` is told: a server's settings, and where its workers are placed.

    Attributes:
        ray_address: of the cluster; "auto": the one that this machine belongs to.
        cpus_per_worker, gpus_per_worker: what Ray sets aside for each; None: one GPU where the cluster has any.
    """

    ray_address: str = "auto"
    cpus_per_worker: float = Field(default=1.0, ge=0, le=4096)
    gpus_per_worker: float | None = Field(default=None, ge=0, le=64)


class WorkerCommand(WorkerSettings):
    """What `paceline worker` is told."""

    not_offered: ClassVar[frozenset[str]] = frozenset()

    @field_validator("delay")
    @classmethod
    def _delay_parses(cls, value: str | None) -> str | None:
        from paceline.laws import parse_law

        if value is not None:
            parse_law(value)
        return value

    def worker_settings(self) -> WorkerSettings:
        """Give the worker's part: all of it."""
        return WorkerSettings(**{name: getattr(self, name) for name in WorkerSettings.model_fields})


def parse_prices(value: object) -> object:
    """Read prices of an hour by worker: ``w1=2.5,w2=0.4``, or ``2.5`` for all.

    Raises:
        UsageError: one is not a number, or is nobody's.
    """
    if value is None or isinstance(value, Mapping):
        return value
    prices: dict[str, float] = {}
    words = [word.strip() for word in joined(value).split(",")]
    for word in words:
        name, sign, price = word.rpartition("=")
        try:
            prices[name.strip() if sign else "*"] = float(price)
        except ValueError:
            raise UsageError(f"--price has {price!r} for a number: expected 2.5, or w1=2.5,w2=0.4") from None
    if len(prices) < len(words):
        raise UsageError(f"--price is {joined(value)!r}: expected one price for all, or one for each name")
    return prices


def parse_means(value: object) -> object:
    """Read seconds per task by worker, ``w1=0.01,w2=0.02``, or ``0.01,0.02`` for w1, w2, ... in this order.

    Args:
        value: the text; or the list or table that a settings file has.

    Raises:
        UsageError: a mean is not a number.
    """
    if value is None or isinstance(value, Mapping):
        return value
    words = [word.strip() for word in joined(value).split(",")]
    pairs = [word.rpartition("=") for word in words]
    if len({bool(sign) for _, sign, _ in pairs}) == 2:
        raise UsageError(f"--means is {joined(value)!r}: expected every mean with a name, or none")
    means_s: dict[str, float] = {}
    for number, (name, _, seconds) in enumerate(pairs, start=1):
        try:
            means_s[name.strip() or f"w{number}"] = float(seconds)
        except ValueError:
            raise UsageError(
                f"--means has {seconds!r} for a number: expected seconds per task, w1=0.01,w2=0.02 or 0.01,0.02"
            ) from None
    return means_s


def joined(value: Any) -> str:
    """Write a list as it stands on the command line."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        return str(value)
    return ",".join(str(part) for part in value)


CommandSettings = RunCommand | ServerCommand | RayCommand | WorkerCommand
