"""Time the exact allocation beside its limit: one pass over the n scores.

    python -m benchmarks.allocation [--json FILE]

Prints JSON, one entry per case: median and minimum seconds over the repetitions, the target where there is one, the
limit (seconds of one numpy sum over the same scores, which is memory bandwidth for many workers and the cost of one
numpy call for few) and the ratio of median to limit.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from paceline.allocation import allocate

MANY = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One input; `target_s` is what its median must stay below on 2 cores."""

    name: str
    scores: npt.NDArray[np.float64]
    tasks: int
    target_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One entry of the JSON."""

    case: str
    workers: int
    tasks: int
    repetitions: int
    median_s: float
    min_s: float
    target_s: float | None
    limit: str
    limit_s: float
    ratio_to_limit: float


def cases() -> list[Case]:
    """Return the cases: many and few workers, continuous scores and masses of ties."""
    rng = np.random.default_rng(1)
    exponential = rng.exponential(size=MANY) + 1e-9
    equal = np.full(MANY, 0.3)
    integers = rng.integers(1, 5, MANY).astype(np.float64)
    sqrt_means = 58.0 * np.sqrt(np.arange(1.0, 460.0))
    return [
        Case(name="exponential", scores=exponential, tasks=10**9, target_s=0.1),
        Case(name="exponential", scores=exponential, tasks=10**5, target_s=0.1),
        Case(name="exponential", scores=exponential, tasks=10**12, target_s=0.1),
        Case(name="twelve orders", scores=10.0 ** rng.uniform(-6, 6, MANY), tasks=10**9, target_s=0.1),
        Case(name="all equal", scores=equal, tasks=23, target_s=0.25),
        Case(name="all equal", scores=equal, tasks=10**9 + 7, target_s=0.25),
        Case(name="integers 1-4", scores=integers, tasks=10**9, target_s=0.25),
        Case(name="all zero", scores=np.zeros(MANY), tasks=10**9),
        Case(name="sqrt means", scores=sqrt_means, tasks=23, target_s=50e-6),
        Case(name="sqrt means", scores=sqrt_means[:17].copy(), tasks=23),
        Case(name="all zero", scores=np.zeros(17), tasks=23),
    ]


def seconds(call: Callable[[], object], repetitions: int) -> list[float]:
    """Return the seconds of each repetition, after one that is not counted."""
    call()
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


def measure(case: Case) -> Result:
    rng = np.random.default_rng(2)
    repetitions = 11 if case.scores.size == MANY else 2001
    times = seconds(lambda: allocate(case.scores, case.tasks, rng), repetitions)
    limit_s = statistics.median(seconds(lambda: np.add.reduce(case.scores), repetitions))
    median_s = statistics.median(times)
    return Result(
        case=case.name,
        workers=case.scores.size,
        tasks=case.tasks,
        repetitions=repetitions,
        median_s=median_s,
        min_s=min(times),
        target_s=case.target_s,
        limit="one numpy pass over the scores",
        limit_s=limit_s,
        ratio_to_limit=round(median_s / limit_s, 1),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the exact allocation beside its limit.")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the results to FILE instead of standard output"
    )
    path: Path | None = parser.parse_args().json
    text = json.dumps([asdict(measure(case)) for case in cases()], indent=2) + "\n"
    if path is None:
        sys.stdout.write(text)
    else:
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
