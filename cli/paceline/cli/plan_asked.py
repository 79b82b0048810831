"""What `paceline plan` is asked: numbers of the command line, and those of a run where one is named."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paceline.cli.commands import parse_means
from paceline.coordination.policies import check_policy
from paceline.errors import UsageError
from paceline.link_rates import parse_rate

DEFAULT_POLICIES = "ata-empirical,uniform,greedy"
DEFAULT_LAW = "shifted-exp"
DEFAULT_TASKS = 16
DEFAULT_ROUNDS = 2000
# Of a run, the last rounds say how fast the workers are.
LAST_ROUNDS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is to be planned.

    Attributes:
        means_s, links, prices: by worker: seconds per task, bytes a second, price of an hour.
        server_link: bytes a second.
        pull_bytes, push_bytes: of a version and of a contribution.
        source: of the workers' speeds, in words.
    """

    means_s: dict[str, float]
    links: tuple[float, ...]
    prices: tuple[float, ...]
    server_link: float
    pull_bytes: float
    push_bytes: float
    tasks: int
    law: str
    policies: tuple[str, ...]
    rounds: int
    seed: int
    source: str


@dataclass(frozen=True, slots=True)
class _OfRun:
    """What a run directory says."""

    means_s: dict[str, float]
    pull_bytes: float
    push_bytes: float
    tasks: int
    rounds: int


def gather_asked(run: Path | None, given: Mapping[str, str]) -> Asked:
    """Put together what the command line and the run say; the command line goes first.

    Raises:
        UsageError: something is missing, or no number.
    """
    known = None if run is None else _of_run(run)
    means_s = _means(given, known)
    pull_bytes, push_bytes = _sizes(given, known)
    if "link" not in given:
        raise UsageError("--link is missing: expected what each worker's link carries, such as 1Gbit or 100Mbit,1Gbit")
    links = _each(given["link"], "--link", len(means_s), parse_rate)
    policies = tuple(name.strip() for name in given.get("policy", DEFAULT_POLICIES).split(","))
    for name in policies:
        check_policy(name)
        if policies.count(name) > 1:
            raise UsageError(f"--policy names {name} twice: expected different policies")
    return Asked(
        means_s=means_s,
        links=links,
        prices=_each(given.get("price", "1"), "--price", len(means_s), _price),
        server_link=parse_rate(given["server-link"], "--server-link") if "server-link" in given else max(links),
        pull_bytes=pull_bytes,
        push_bytes=push_bytes,
        tasks=_count(given, "tasks", DEFAULT_TASKS if known is None else known.tasks),
        law=given.get("law", DEFAULT_LAW),
        policies=policies,
        rounds=_count(given, "rounds", DEFAULT_ROUNDS),
        seed=_count(given, "seed", 0, least=0),
        source="as given" if "means" in given or known is None else f"as in the last {known.rounds} rounds of {run}",
    )


def _means(given: Mapping[str, str], known: _OfRun | None) -> dict[str, float]:
    if "means" in given:
        means_s: Any = parse_means(given["means"])
    elif known is not None:
        means_s = known.means_s
    else:
        raise UsageError("--means is missing: expected seconds per task of each worker, or a run directory")
    for name, mean_s in means_s.items():
        if not 0.0 < mean_s < math.inf:
            raise UsageError(f"mean of worker {name!r} is {mean_s}: expected seconds per task above 0")
    return dict(means_s)


def _sizes(given: Mapping[str, str], known: _OfRun | None) -> tuple[float, float]:
    if "params" in given:
        nbytes = 4.0 * _number(given["params"], "--params", "a number of parameters, such as 25e6")
        return nbytes, nbytes
    if known is None:
        raise UsageError("--params is missing: expected the model's number of parameters, or a run directory")
    return known.pull_bytes, known.push_bytes


def _each(text: str, flag: str, workers: int, read: Callable[[str, str], float]) -> tuple[float, ...]:
    values = tuple(read(word, flag) for word in text.split(","))
    if len(values) not in (1, workers):
        raise UsageError(f"{flag} has {len(values)} values for {workers} workers: expected one, or one each")
    return values if len(values) == workers else values * workers


def _price(text: str, flag: str) -> float:
    try:
        price = float(text)
    except ValueError:
        price = math.nan
    if not 0.0 <= price < math.inf:
        raise UsageError(f"{flag} has {text.strip()!r}: expected prices of an hour, at least 0, such as 3,1,0.2")
    return price


def _number(text: str, flag: str, expected: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 < value < math.inf:
        raise UsageError(f"{flag} is {text!r}: expected {expected}")
    return value


def _count(given: Mapping[str, str], name: str, default: int, least: int = 1) -> int:
    if name not in given:
        return default
    text = given[name].strip()
    if not text.isdecimal() or int(text) < least:
        raise UsageError(f"--{name} is {text!r}: expected a whole number of at least {least}")
    return int(text)


def _of_run(path: Path) -> _OfRun:
    """Read a run directory; the run may go on.

    Raises:
        UsageError: it is none, or nothing was done in it.
    """
    from paceline.layout import Role, TensorSpec, contribution_layout, lay_out
    from paceline.server.past_run import open_run

    seconds: dict[str, list[float]] = defaultdict(list)
    with open_run(path) as run:
        first = max(0, run.rounds - LAST_ROUNDS)
        for record, leases in run.each_round():
            if record.round > first:
                for lease in leases:
                    seconds[lease.worker] += [result.seconds for result in lease.results]
        settings, fingerprint, rounds = run.beginning.settings, run.beginning.fingerprint, run.rounds
    if not seconds:
        raise UsageError(f"run {str(path)!r} has no round: expected one in which workers did tasks, or --means")
    specs = [TensorSpec(Role[role.upper()], name, shape, dtype) for name, role, shape, dtype in fingerprint.tensors]
    layout = lay_out(specs)
    return _OfRun(
        means_s={name: sum(values) / len(values) for name, values in sorted(seconds.items())},
        pull_bytes=layout.version_nbytes,
        push_bytes=contribution_layout(layout, settings.sums).nbytes,
        tasks=settings.tasks,
        rounds=min(rounds, LAST_ROUNDS),
    )
