"""The policies: small rules over `paceline.allocation`, chosen by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from paceline.coordination.plan import Policy
from paceline.coordination.policies.adaptive_k_sync import AdaptiveKSync
from paceline.coordination.policies.ata import Ata, AtaEmpirical
from paceline.coordination.policies.backup import Backup
from paceline.coordination.policies.cmab import CmabKl, CmabLcb, CmabOracle
from paceline.coordination.policies.fixed import Fixed
from paceline.coordination.policies.greedy import Greedy
from paceline.coordination.policies.k_async import Asgd, KAsync, KBatchAsync, Ringmaster
from paceline.coordination.policies.k_sync import KBatchSync, KSync
from paceline.coordination.policies.malenia import Malenia
from paceline.coordination.policies.mindflayer import MindFlayer
from paceline.coordination.policies.schedule import GrowingCount, parse_switch_at
from paceline.coordination.policies.stationarity import Distance, Pflug, StationarityTest
from paceline.coordination.policies.uniform import Uniform
from paceline.errors import UsageError
from paceline.nearest import did_you_mean

POLICY_NAMES = (
    "ata-empirical",
    "ata",
    "greedy",
    "uniform",
    "fixed",
    "cmab-lcb",
    "cmab-kl",
    "cmab-oracle",
    "k-sync",
    "adaptive-k-sync",
    "k-batch-sync",
    "k-async",
    "k-batch-async",
    "asgd",
    "ringmaster",
    "backup",
    "malenia",
    "mindflayer",
)

# These employ workers one by one: with fewer workers than tasks per round they cannot do what they are asked.
EMPLOYING = frozenset({"cmab-lcb", "cmab-kl", "cmab-oracle", "k-sync", "adaptive-k-sync", "k-async"})

# These apply work that was begun at an older version.
ASYNCHRONOUS = frozenset({"k-async", "k-batch-async", "asgd", "ringmaster"})

# These make an update of every single result.
SINGLE_RESULT = frozenset({"asgd", "ringmaster"})

STATIONARITY_TESTS = ("pflug", "pflug-raw", "distance")


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyOptions:
    """What policies can be told; each looks at what is its own.

    Attributes:
        tasks: B; K of the K family, the largest K or r where it grows.
        constants: of the confidence radius, for the ATA policies: "paper", "as-run" or a number.
        alpha_s: for `ata`; None: twice the largest learned mean.
        means_s: for `fixed` and `cmab-oracle`: seconds per task by worker name.
        mean_max_s: for `cmab-lcb`: bound of all means; None: the largest learned one (experimental).
        k_start, k_step: of r (cmab) and K (`adaptive-k-sync`); no start: all tasks from the first round on for cmab
            without switching rounds, else 1.
        switch_at: rounds after which r grows: "100,200" or "every:100".
        k_test: what makes K grow: "pflug", "pflug-raw" or "distance".
        k_burn_in: rounds that a phase of K has at least.
        staleness: the asynchronous policies drop what is so many versions behind; None: see each.
        parts: for `malenia`: parts of the data.
    """

    tasks: int = 1
    constants: str = "paper"
    alpha_s: float | None = None
    means_s: Mapping[str, float] | None = None
    mean_max_s: float | None = None
    k_start: int | None = None
    k_step: int = 1
    switch_at: str | None = None
    k_test: str = "pflug"
    k_burn_in: int = 200
    staleness: int | None = None
    parts: int = 0


def make_policy(name: str, options: PolicyOptions | None = None, *, rng: np.random.Generator) -> Policy:
    """Make a policy by name; all its chance comes from `rng`.

    Raises:
        UsageError: an unknown name, options that do not parse, or one missing.
    """
    options = options if options is not None else PolicyOptions()
    match name:
        case "ata-empirical":
            return AtaEmpirical(rng, options.constants)
        case "ata":
            return Ata(rng, options.constants, options.alpha_s)
        case "greedy":
            return Greedy()
        case "uniform":
            return Uniform(rng)
        case "fixed":
            return Fixed(rng, options.means_s or {})
        case "cmab-lcb" | "cmab-kl" | "cmab-oracle":
            return _cmab(name, options, rng)
        case "backup":
            return Backup()
        case "malenia":
            return Malenia(options.parts)
        case "mindflayer":
            return MindFlayer(rng)
    return _k_family(name, options)


def options_read(name: str) -> frozenset[str]:
    """Name the options that a policy looks at, tasks left aside: any other changes nothing.

    Found by making one and looking on, so that nobody has to keep a list.

    Raises:
        UsageError: an unknown name.
    """
    seen: set[str] = set()

    class Watched(PolicyOptions):
        def __getattribute__(self, option: str) -> object:
            seen.add(option)
            return super().__getattribute__(option)

    make_policy(check_policy(name), Watched(means_s={"w1": 1.0}, parts=1), rng=np.random.default_rng(0))
    return frozenset(seen & PolicyOptions.__dataclass_fields__.keys() - {"tasks"})


def check_policy(name: str) -> str:
    """Give the name back if it is one.

    Raises:
        UsageError: it is not; names the nearest and all.
    """
    if name in POLICY_NAMES:
        return name
    known = ", ".join(POLICY_NAMES)
    raise UsageError(f"policy is {name!r}: expected one of {known}{did_you_mean(name, POLICY_NAMES)}")


def employment_schedule(options: PolicyOptions) -> GrowingCount:
    """Say how many workers the cmab policies employ in each round.

    Raises:
        UsageError: numbers that cannot be, or switching rounds that do not parse.
    """
    start = options.k_start if options.k_start is not None else (1 if options.switch_at else options.tasks)
    growth = {} if options.switch_at is None else {"switch_at": parse_switch_at(options.switch_at)}
    return GrowingCount(start, options.k_step, options.tasks, **growth)


def _cmab(name: str, options: PolicyOptions, rng: np.random.Generator) -> Policy:
    schedule = employment_schedule(options)
    match name:
        case "cmab-lcb":
            return CmabLcb(rng, schedule, options.mean_max_s)
        case "cmab-kl":
            return CmabKl(rng, schedule)
    return CmabOracle(schedule, options.means_s or {})


def _k_family(name: str, options: PolicyOptions) -> Policy:
    match name:
        case "k-sync":
            return KSync(options.tasks)
        case "adaptive-k-sync":
            return AdaptiveKSync(options.k_start or 1, options.k_step, options.tasks, _test(options))
        case "k-batch-sync":
            return KBatchSync()
        case "k-async":
            return KAsync(options.tasks, _staleness(options))
        case "k-batch-async":
            return KBatchAsync(options.tasks, _staleness(options))
        case "asgd":
            return Asgd(_staleness(options))
        case "ringmaster":
            return Ringmaster(_staleness(options))
    check_policy(name)
    raise AssertionError(name)


def _staleness(options: PolicyOptions) -> int | None:
    if options.staleness is not None and options.staleness < 1:
        raise UsageError(f"staleness is {options.staleness}: expected at least 1, which keeps only what is current")
    return options.staleness


def _test(options: PolicyOptions) -> StationarityTest:
    match options.k_test:
        case "pflug" | "pflug-raw":
            return Pflug(burn_in=options.k_burn_in, clamped=options.k_test == "pflug")
        case "distance":
            return Distance(first=max(options.k_burn_in, 2))
    raise UsageError(f"k-test is {options.k_test!r}: expected one of {', '.join(STATIONARITY_TESTS)}")


__all__ = [
    "ASYNCHRONOUS",
    "EMPLOYING",
    "POLICY_NAMES",
    "SINGLE_RESULT",
    "STATIONARITY_TESTS",
    "Asgd",
    "Ata",
    "AtaEmpirical",
    "Backup",
    "CmabKl",
    "CmabLcb",
    "CmabOracle",
    "Fixed",
    "Greedy",
    "KAsync",
    "KBatchAsync",
    "KBatchSync",
    "KSync",
    "Malenia",
    "MindFlayer",
    "PolicyOptions",
    "Ringmaster",
    "Uniform",
    "check_policy",
    "employment_schedule",
    "make_policy",
    "options_read",
    "parse_switch_at",
]
