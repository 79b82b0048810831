"""Is paceline worth it for these machines? Rounds of policies, of DDP and of one machine alone, in seconds and money.

Computing is simulated, by the same code as the papers' experiments. Transfer is a formula, ours: a worker pulls,
computes and pushes, one after another, and all share the server's link; so a round takes the policy's mean round, and
the transfer of the slowest link among those that had tasks:

    (pull + push) / min(link of the worker, link of the server / workers with tasks) + overhead

which is too much where one worker's transfer hides behind another's computing. DDP is given its best case: every
machine does as many tasks, and its ring (2 (n - 1) / n gradients over the slowest link) hides behind the computing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from paceline.coordination.policies import EMPLOYING
from paceline.errors import UsageError
from paceline.link_rates import ROUND_OVERHEAD_S
from paceline.simulation.experiments.coordinated import simulate_on_coordinator
from paceline.simulation.experiments.experiment import Variant
from paceline.simulation.experiments.games import COMPILED_POLICIES
from paceline.simulation.experiments.listener import Listener
from paceline.simulation.experiments.results import PolicyResult
from paceline.simulation.experiments.running import simulate_compiled
from paceline.simulation.setting import Setting
from paceline.simulation.shapes import Shape, check_means, scaled

DDP, ALONE = "DDP", "alone"
# A worker is left out where that costs no more than this share of the time, and saves something.
WORTH_IT = 0.02
# Leaving out is tried for so many of the slowest.
MOST_TRIED = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Machines:
    """What there is, and what is asked of it.

    Attributes:
        names: of the workers; means_s: seconds per task; links: bytes a second; prices: per hour. One for each worker.
        server_link: bytes a second, in each direction.
        pull_bytes, push_bytes: of a version and of a contribution.
        law: shape of the task times.

    Raises:
        UsageError: numbers that cannot be.
    """

    names: tuple[str, ...]
    means_s: tuple[float, ...]
    links: tuple[float, ...]
    prices: tuple[float, ...]
    server_link: float
    pull_bytes: float
    push_bytes: float
    tasks: int
    law: Shape

    def __post_init__(self) -> None:
        check_means(self.means_s)

    def without(self, place: int) -> Machines:
        """Give the others."""

        def others(values: tuple[float, ...]) -> tuple[float, ...]:
            return values[:place] + values[place + 1 :]

        names = self.names[:place] + self.names[place + 1 :]
        links, prices = others(self.links), others(self.prices)
        return replace(self, names=names, means_s=others(self.means_s), links=links, prices=prices)


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to make an update of `tasks` tasks.

    Attributes:
        round_s: seconds of an update, of it transfer_s for transfer (what is not hidden) and messages.
        busy_s: worker seconds of computing, used or wasted.
        rented: price of an update where all machines are paid for as long as it takes.
        used: price where each is paid for the seconds that it computes or transfers.
        tasks: of each worker in an update, in the mean; those of others' leases that were thrown away included.
    """

    name: str
    round_s: float
    transfer_s: float
    busy_s: float
    rented: float
    used: float
    tasks: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What a round is without one worker."""

    worker: str
    way: Way


def ways(machines: Machines, policies: Sequence[str], rounds: int, seed: int, listener: Listener) -> list[Way]:
    """Give the policies' ways, DDP's and that of the fastest machine alone, in this order.

    Raises:
        UsageError: a policy that these machines cannot do.
    """
    found = [_policy(machines, policy, rounds, seed, listener) for policy in policies]
    return [*found, _ddp(machines, rounds, seed, listener), _alone(machines)]


def left_out(machines: Machines, policy: str, rounds: int, seed: int, listener: Listener) -> list[LeftOut]:
    """Give a policy's way without each of the slowest workers."""
    if len(machines.names) < 2:
        return []
    slowest = np.argsort(machines.means_s, kind="stable")[::-1][:MOST_TRIED].tolist()
    return [
        LeftOut(machines.names[place], _policy(machines.without(place), policy, rounds, seed, listener))
        for place in sorted(slowest)
    ]


def enough_tasks(machines: Machines, policy: str, rounds: int, seed: int, listener: Listener) -> int | None:
    """Give the smallest doubling of the tasks with which a policy is faster than DDP and the fastest machine alone.

    Returns:
        None: there is none below 2 ** 16 times as many, or it is so already.
    """
    for doublings in range(1, 17):
        more = replace(machines, tasks=machines.tasks << doublings)
        if more.tasks > 1_000_000:
            break
        best, ddp, alone = ways(more, [policy], rounds, seed, listener)
        if best.round_s < min(ddp.round_s, alone.round_s):
            return more.tasks
    return None


def verdict(best: Way, ddp: Way, alone: Way, others: Sequence[LeftOut]) -> tuple[str, tuple[str, ...]]:
    """Say which way to go: "alone", "DDP" or the policy's name; and for the last the workers that are not worth it.

    Each of these would cost at most WORTH_IT of the time if it alone were left out, and saves rent.
    """
    if alone.round_s <= min(best.round_s, ddp.round_s):
        return ALONE, ()
    if ddp.round_s <= best.round_s:
        return DDP, ()
    useless = [
        other.worker
        for other in others
        if other.way.round_s <= (1.0 + WORTH_IT) * best.round_s and other.way.rented < best.rented
    ]
    return best.name, tuple(useless)


def _policy(machines: Machines, policy: str, rounds: int, seed: int, listener: Listener) -> Way:
    result = _simulated(machines, policy, rounds, seed, listener)
    tasks = tuple(count / result.rounds for count in result.tasks_per_worker)
    # With less than a task a round a worker is there in some of them only.
    active = max(1.0, sum(min(1.0, share) for share in tasks))
    each = machines.pull_bytes + machines.push_bytes
    slowest = [link for link, share in zip(machines.links, tasks, strict=True) if share > 0.0]
    transfer_s = ROUND_OVERHEAD_S + each / min(*slowest, machines.server_link / active)
    return _way(machines, policy, result.mean_round_s + transfer_s, transfer_s, result.mean_round_work_s, tasks)


def _ddp(machines: Machines, rounds: int, seed: int, listener: Listener) -> Way:
    n = len(machines.names)
    each = math.ceil(machines.tasks / n)
    even = replace(machines, tasks=n * each)
    result = _simulated(even, "uniform", rounds, seed, listener)
    ring_s = 0.0 if n == 1 else 2.0 * (n - 1) / n * machines.push_bytes / min(machines.links)
    computing_s = result.mean_round_s * machines.tasks / even.tasks
    busy_s = result.mean_round_work_s * machines.tasks / even.tasks
    round_s = max(computing_s, ring_s)
    return _way(machines, DDP, round_s, round_s - computing_s, busy_s, (machines.tasks / n,) * n)


def _alone(machines: Machines) -> Way:
    fastest = int(np.argmin(machines.means_s))
    round_s = machines.tasks * machines.means_s[fastest]
    rented = round_s / 3600.0 * machines.prices[fastest]
    tasks = tuple(float(machines.tasks * (place == fastest)) for place in range(len(machines.names)))
    name = f"{machines.names[fastest]} {ALONE}"
    return Way(name=name, round_s=round_s, transfer_s=0.0, busy_s=round_s, rented=rented, used=rented, tasks=tasks)


def _way(
    machines: Machines, name: str, round_s: float, transfer_s: float, busy_s: float, tasks: tuple[float, ...]
) -> Way:
    hours = round_s / 3600.0
    # Of the seconds of computing each worker has the part of its tasks at its own speed.
    own_s = [share * mean_s for share, mean_s in zip(tasks, machines.means_s, strict=True)]
    scale = busy_s / sum(own_s)
    used = sum(
        (scale * seconds + min(1.0, share) * transfer_s) / 3600.0 * price
        for seconds, share, price in zip(own_s, tasks, machines.prices, strict=True)
    )
    rented = hours * sum(machines.prices)
    return Way(name=name, round_s=round_s, transfer_s=transfer_s, busy_s=busy_s, rented=rented, used=used, tasks=tasks)


def _simulated(machines: Machines, policy: str, rounds: int, seed: int, listener: Listener) -> PolicyResult:
    n = len(machines.names)
    if policy in EMPLOYING and machines.tasks > n:
        expected = f"expected --tasks of at most {n}"
        raise UsageError(f"policy {policy} employs {machines.tasks} workers a round, but there are {n}: {expected}")
    setting = Setting(laws=scaled(machines.law, machines.means_s), tasks=machines.tasks, seed=seed)
    if policy in COMPILED_POLICIES:
        result = simulate_compiled(Variant(policy), setting, rounds, listener)
    else:
        result = simulate_on_coordinator(policy, setting, rounds, listener)
    if result is None:
        raise UsageError(f"policy {policy} was stopped before its first round")
    return result
