"""What a run can be told: two frozen models, checked when made, with units in the names.

`RunSettings` is the server's (and `run`'s). What server and workers must agree on is in its `SharedSettings`, which
travels to every worker in the welcome message; a worker has settings only for what is its own (`WorkerSettings`).
Reading flags, environment and paceline.toml is the command's business; nothing here does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from paceline.allocation import constant_for
from paceline.coordination.policies import SINGLE_RESULT, PolicyOptions, check_policy, parse_switch_at
from paceline.durations import parse_duration
from paceline.errors import UsageError
from paceline.loggers import check_loggers

T = TypeVar("T")

WORKER_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/]+):(\d{1,5})")
HOST = re.compile(r"\[[0-9A-Fa-f:]+\]|::|::1|[^\s:\[\]/]+")
DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")
GOAL = re.compile(r"([A-Za-z_][\w-]*)\s*(>=|<=)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)")

BEST = re.compile(r"[A-Za-z_][\w-]*(:(min|max))?")

CACHE_BYTES = 10 * 10**9
"""That copies of shards may take, where nothing is said."""

Count = Annotated[int, Field(ge=1)]


class Interval(NamedTuple):
    """Between checkpoints: rounds or seconds; neither: there are none."""

    rounds: int | None = None
    seconds: float | None = None


NEVER = Interval()


def parse_interval(text: str) -> Interval:
    """Read `checkpoint_every`.

    Raises:
        UsageError: it is neither a number of rounds, a span of time above 0, nor never.
    """
    if text == "never":
        return NEVER
    if re.fullmatch(r"[1-9]\d*", text):
        return Interval(rounds=int(text))
    try:
        seconds = 0.0 if text.isdecimal() else parse_duration(text, "checkpoint-every")
    except UsageError:
        seconds = 0.0
    if not seconds:
        raise UsageError(f"checkpoint-every is {text!r}: expected rounds (20), a span of time (60s, 10m) or never")
    return Interval(seconds=seconds)


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SharedSettings(_Settings):
    """What server and workers must agree on; said once, to the server.

    Attributes:
        micro_steps: slices of a task; "auto": as few as each worker's memory takes, found by trying.
        channels_last: pictures of a batch are laid out so, for convolutions.
        compile: each worker compiles the model with torch.compile.
        threads: torch threads of every worker's CPU computing: other counts may round differently.
        heartbeat_s: a worker that has nothing to say says so this often.
        inline_bytes: states and contributions up to this size travel inside session messages.
        partition: parts of the data that belong to one worker each; 0: all data are everybody's.
    """

    seed: int = Field(default=0, ge=0, lt=2**63)
    micro_batch: Count = 32
    micro_steps: Count | Literal["auto"] = 1
    sums: Literal["fast", "exact"] = "fast"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool = False
    compile: bool = False
    threads: Count = 1
    heartbeat_s: float = Field(default=2.0, gt=0)
    inline_bytes: int = Field(default=64 * 1024, ge=0, le=2**20)
    partition: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _micro_steps_fit(self) -> SharedSettings:
        if self.micro_steps == "auto":
            if self.sums == "exact":
                raise ValueError(
                    "micro-steps is 'auto' with exact sums: a task cut by a worker's memory has other bits on each, "
                    f"expected a number, 1 to {self.micro_batch}"
                )
        elif self.micro_steps > self.micro_batch:
            raise ValueError(f"micro-steps is {self.micro_steps}: expected 1 to {self.micro_batch}, the micro-batch")
        return self


class RunSettings(SharedSettings):
    """Everything a server is told.

    Attributes:
        job: `path/file.py:Class` or `pkg.mod:Class`.
        data: folder handed to the job as `job.data`.
        policy: one of coordination.policies.POLICY_NAMES.
        tasks: B, tasks per round; K of the K family, the largest K or r where it grows.
        rounds, epochs, until: when the run ends: the first that comes. With none of them, one epoch.
        eval_every: rounds between evaluations, 0 for the last round alone; 1 where `until` needs it.
        constants: of the confidence radius: "paper", "as-run" or a number.
        alpha_s: bound of the Orlicz norm for `ata`; None: twice the largest learned mean (ours, not the paper's).
        means_s: for `fixed` and `cmab-oracle`: seconds per task by worker name.
        mean_max_s, k_start, k_step, switch_at, k_test, k_burn_in, staleness: see policies.PolicyOptions.
        lost_after_s: a closed session that is not resumed within this time is a lost worker.
        silent_after_s: so is one that says nothing for this long: longer than any hold of the interpreter's lock.
        progress_s: and one that makes no progress for max(this, 8 times its learned task time).
        checkpoint_every: rounds ("20") or time ("60s") between checkpoints, or "never".
        keep_checkpoints: so many of the newest stay.
        best: metric ("accuracy", "error:min") by which the best version is kept too; None: that of `until`, if any.
        patience: the run ends after so many evaluations without a better metric, that of `best` or `until`.
        strikes: a worker is put aside for long after so many refused contributions.
        grace_s: when it is told to stop, the present round may take so long to close.
        idle_exit_s: the run is stopped after so long without any worker; None: never.
        tokens: file of those who may join, see and rule; None: everybody may join and see.
        metrics_host: metrics are served there, to everybody who can reach it.
        web_port, web_host: the live page is served there; beyond this machine to who has a token.
        tls_dir: folder with ca.pem, server.pem and server.key; None: nothing is encrypted.
        price: of an hour of each worker by name, "*" for all others; for what people are shown.
        log: loggers that write the run into the formats of other tools, see paceline.loggers.
    """

    job: str
    data: Path | None = None
    policy: str = "ata-empirical"
    # A round's tasks are a list in memory.
    tasks: int = Field(default=16, ge=1, le=1_000_000)
    rounds: Count | None = None
    epochs: Count | None = None
    until: str | None = None
    eval_every: int = Field(default=0, ge=0)
    constants: str = "paper"
    alpha_s: float | None = Field(default=None, gt=0)
    means_s: dict[str, float] | None = None
    mean_max_s: float | None = Field(default=None, gt=0)
    k_start: Count | None = None
    k_step: Count = 1
    switch_at: str | None = None
    k_test: Literal["pflug", "pflug-raw", "distance"] = "pflug"
    k_burn_in: int = Field(default=200, ge=0)
    staleness: Count | None = None
    min_workers: Count = 1
    init: Path | None = None
    run_dir: Path | None = None
    bind: str = "127.0.0.1:7070"
    insecure: bool = False
    tls_dir: Path | None = None
    tokens: Path | None = None
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = Field(default=None, ge=0, le=65535)
    web_host: str = "127.0.0.1"
    web_port: int | None = Field(default=None, ge=0, le=65535)
    device: str = "cpu"
    eval_device: str | None = None
    reflection: bool = False
    lost_after_s: float = Field(default=1.0, ge=0)
    silent_after_s: float = Field(default=10.0, gt=0)
    progress_s: float = Field(default=30.0, gt=0)
    checkpoint_every: str = "60s"
    keep_checkpoints: Count = 2
    best: str | None = None
    patience: Count | None = None
    strikes: Count = 3
    grace_s: float = Field(default=10.0, ge=0)
    idle_exit_s: float | None = Field(default=3600.0, gt=0)
    push_memory_bytes: int | None = Field(default=None, gt=0)
    price: dict[str, float] | None = None
    log: tuple[str, ...] = ()

    @field_validator("price")
    @classmethod
    def _prices_are_some(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        for name, price in (value or {}).items():
            if price < 0:
                raise ValueError(f"price of worker {name!r} is {price}: expected at least 0 an hour")
        return value

    @field_validator("log", mode="before")
    @classmethod
    def _loggers_are_known(cls, value: object) -> tuple[str, ...]:
        names = value.split(",") if isinstance(value, str) else list(value) if isinstance(value, list | tuple) else []
        return _as_value_error(lambda: check_loggers([str(name).strip() for name in names]))

    @field_validator("bind")
    @classmethod
    def _bind_parses(cls, value: str) -> str:
        return _check_address(value, "bind", lowest_port=0)

    @field_validator("metrics_host", "web_host")
    @classmethod
    def _hosts_are_some(cls, value: str, info: ValidationInfo) -> str:
        # An empty one would be every address of this machine.
        if not HOST.fullmatch(value):
            name = str(info.field_name).replace("_", "-")
            raise ValueError(f"{name} is {value!r}: expected a host's name or address, without a port")
        return value

    @field_validator("device", "eval_device")
    @classmethod
    def _device_parses(cls, value: str | None) -> str | None:
        return _check_device(value)

    @field_validator("constants")
    @classmethod
    def _constants_parse(cls, value: str) -> str:
        if value not in ("paper", "as-run"):
            try:
                positive = 0.0 < float(value) < math.inf
            except ValueError:
                positive = False
            if not positive:
                raise ValueError(f"constants is {value!r}: expected paper, as-run or a number above 0")
        return value

    @field_validator("until")
    @classmethod
    def _goal_parses(cls, value: str | None) -> str | None:
        if value is not None and not GOAL.fullmatch(value.strip()):
            raise ValueError(f"until is {value!r}: expected METRIC>=NUMBER or METRIC<=NUMBER, such as accuracy>=0.97")
        return value

    @field_validator("checkpoint_every")
    @classmethod
    def _interval_parses(cls, value: str) -> str:
        _as_value_error(parse_interval, value)
        return value

    @field_validator("best")
    @classmethod
    def _best_parses(cls, value: str | None) -> str | None:
        if value is not None and not BEST.fullmatch(value):
            raise ValueError(f"best is {value!r}: expected METRIC, METRIC:max or METRIC:min, such as accuracy")
        return value

    @field_validator("policy")
    @classmethod
    def _policy_is_known(cls, value: str) -> str:
        return _as_value_error(check_policy, value)

    @field_validator("switch_at", mode="before")
    @classmethod
    def _switches_parse(cls, value: object) -> str | None:
        if value is None:
            return None
        text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        return _as_value_error(lambda: str(parse_switch_at(text)))

    @model_validator(mode="after")
    def _policy_has_what_it_needs(self) -> RunSettings:
        if self.policy in ("fixed", "cmab-oracle") and not self.means_s:
            expected = "seconds per task of each worker, such as --means w1=0.01,w2=0.02"
            raise ValueError(f"policy {self.policy} needs --means: {expected}")
        if self.policy == "malenia" and not self.partition:
            raise ValueError("policy malenia needs data that belong to workers: expected --partition N")
        if self.policy != "malenia" and self.partition:
            raise ValueError(f"partition is {self.partition}, but policy {self.policy} gives any task to any worker")
        if self.k_start is not None and self.k_start > self.tasks:
            raise ValueError(f"k-start is {self.k_start}: expected 1 to {self.tasks}, the tasks per round")
        for name, mean_s in (self.means_s or {}).items():
            if not mean_s > 0:
                raise ValueError(f"mean of worker {name!r} is {mean_s}: expected seconds per task above 0")
        return self

    @model_validator(mode="after")
    def _patience_has_a_metric(self) -> RunSettings:
        if self.patience is not None and self.best_by() is None:
            expected = "expected --best METRIC, such as accuracy or error:min"
            raise ValueError(f"patience is {self.patience}, but no metric is named to wait for: {expected}")
        return self

    @model_validator(mode="after")
    def _encrypted_or_not(self) -> RunSettings:
        if self.insecure and self.tls_dir is not None:
            raise ValueError("--insecure and --tls-dir contradict each other: expected one of them")
        return self

    def policy_options(self) -> PolicyOptions:
        """Give what the policy is told."""
        return PolicyOptions(
            tasks=self.tasks,
            constants=self.constants,
            alpha_s=self.alpha_s,
            means_s=self.means_s,
            mean_max_s=self.mean_max_s,
            k_start=self.k_start,
            k_step=self.k_step,
            switch_at=self.switch_at,
            k_test=self.k_test,
            k_burn_in=self.k_burn_in,
            staleness=self.staleness,
            parts=self.partition,
        )

    def radius_constant(self) -> float:
        """Give the factor of ata-empirical's confidence radius, as people are shown it for every policy."""
        return constant_for("ata-empirical", self.constants)

    def tasks_of_round(self) -> int:
        """Give the tasks that an update has: one, where each result makes one."""
        return 1 if self.policy in SINGLE_RESULT else self.tasks

    def interval(self) -> Interval:
        """Give `checkpoint_every`."""
        return parse_interval(self.checkpoint_every)

    def evaluate_every(self) -> int:
        """Give the rounds between evaluations; 0: the last version alone is measured."""
        return self.eval_every or (1 if self.best_by() is not None else 0)

    def best_by(self) -> tuple[str, bool] | None:
        """Give the metric by which the best version is kept, and whether more is better; None: none is kept."""
        goal = self.goal()
        if self.best is not None:
            name, _, direction = self.best.partition(":")
            least = goal is not None and goal[0] == name and goal[1] == "<="
            return name, direction == "max" if direction else not least
        return None if goal is None else (goal[0], goal[1] == ">=")

    def shared(self) -> SharedSettings:
        """Give the part that every worker is told."""
        return SharedSettings(**{name: getattr(self, name) for name in SharedSettings.model_fields})

    def goal(self) -> tuple[str, str, float] | None:
        """Give `until` as (metric, ">=" or "<=", bound)."""
        match = GOAL.fullmatch(self.until.strip()) if self.until else None
        return (match[1], match[2], float(match[3])) if match else None


class WorkerSettings(_Settings):
    """What is a worker's own.

    Attributes:
        name: None: the host's name and the first free slot on it.
        pace: takes pace times its own compute time per task (it sleeps the rest); for experiments.
        delay: a law of extra seconds per task, see laws.parse_law; for experiments.
        reconnect_for_s: how long to look for a server that cannot be reached before giving up.
        delay_seed: of the delay's draws; None: fresh.
        web_port, web_host: the live page is served there; beyond this machine to who has a token.
        tls_dir: folder with ca.pem, worker.pem and worker.key; None: nothing is encrypted.
        token_file: what is in it is shown to the server; None: PACELINE_TOKEN, if it is set.
        loaders: processes that load samples beside the computing; 0: the computing thread does; None: as it pays.
        loader_limit_s: a task whose samples do not come within this time fails.
        cache: folder for copies of shards; None: see streams.cache.default_folder.
        cache_bytes: of all copies together.
    """

    server: str
    job: str
    data: Path | None = None
    name: str | None = None
    device: str = "auto"
    pace: float = Field(default=1.0, ge=1.0)
    delay: str | None = None
    delay_seed: int | None = Field(default=None, ge=0)
    reconnect_for_s: float = Field(default=600.0, ge=0)
    tls_dir: Path | None = None
    token_file: Path | None = None
    loaders: int | None = Field(default=None, ge=0, le=256)
    loader_limit_s: float = Field(default=60.0, gt=0)
    cache: Path | None = None
    cache_bytes: int = Field(default=CACHE_BYTES, ge=1)

    @field_validator("server")
    @classmethod
    def _server_parses(cls, value: str) -> str:
        return _check_address(value, "server", lowest_port=1)

    @field_validator("device")
    @classmethod
    def _device_parses(cls, value: str | None) -> str | None:
        return _check_device(value)

    @field_validator("name")
    @classmethod
    def _name_fits(cls, value: str | None) -> str | None:
        if value is not None and not WORKER_NAME.fullmatch(value):
            raise ValueError(f"name is {value!r}: expected 1 to 64 of the characters A-Z a-z 0-9 . _ -")
        return value


def _as_value_error(check: Callable[..., T], *given: str) -> T:
    """Let pydantic see what a check of ours finds, so that it is said of the flag or variable that it came from."""
    try:
        return check(*given)
    except UsageError as error:
        raise ValueError(str(error)) from error


def _check_address(value: str, name: str, lowest_port: int) -> str:
    match = ADDRESS.fullmatch(value)
    if not match or not lowest_port <= int(match[2]) <= 65535:
        raise ValueError(f"{name} is {value!r}: expected HOST:PORT, with a port of {lowest_port} to 65535")
    return value


def _check_device(value: str | None) -> str | None:
    if value is not None and not DEVICE.fullmatch(value):
        raise ValueError(f"device is {value!r}: expected auto, cpu, cuda or cuda:<number>")
    return value
