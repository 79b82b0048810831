"""Train for a quarter of an hour while workers come and go, and see whether the server grows.

    python -m benchmarks.chaos.soak [--json FILE] [--minutes N] [--warm-up N]

A worker of four is killed (or, every other time, drained) every five seconds and started anew. Once a second the
server's resident memory, open descriptors and threads are read from /proc (Linux). After the warm-up a line is fitted
through the memory; descriptors and threads are the medians of the first and the last third, and the largest.
"""

from __future__ import annotations

import itertools
import random
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measuring import parser, progress, write
from tests.system.cluster import Cluster, cluster, until

JOB = "tests/jobs.py:DigitsLike"
NAMES = ("a", "b", "c", "d")
SERVER = ("--rounds", "100000000", "--tasks", "8", "--micro-batch", "8", "--min-workers", str(len(NAMES)))
DELAY = ("--delay", "const:0.02")
CHURN_S = 5.0
TARGET_MB_PER_MIN = 1.0
# A session that is just being replaced holds a few more of them.
FLAT = 3


@dataclass(frozen=True, slots=True)
class Sample:
    """What /proc and the run directory said at a time (seconds)."""

    at_s: float
    rss_bytes: int
    descriptors: int
    threads: int
    rounds: int
    ledger_bytes: int


def sample(run: Cluster, began_s: float) -> Sample:
    """Look at the server; `began_s` by the monotonic clock."""
    process = Path(f"/proc/{run.server.pid}")
    fields = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    return Sample(
        at_s=time.monotonic() - began_s,
        rss_bytes=int(fields["VmRSS"].split()[0]) * 1024,
        descriptors=sum(1 for _ in (process / "fd").iterdir()),
        threads=int(fields["Threads"]),
        rounds=int(run.status().get("version", 0)),
        ledger_bytes=(run.run_dir / "ledger.sqlite").stat().st_size,
    )


def churn(run: Cluster, minutes: float) -> tuple[list[Sample], int, int]:
    """Train, kill and drain; give the samples, and how many were killed and drained."""
    chance, living = random.Random(3), {name: run.worker(name, *DELAY) for name in NAMES}
    run.at_round(1)
    began_s = time.monotonic()
    samples: list[Sample] = []
    counts = [0, 0]
    for number in itertools.count():
        ends_s = began_s + number * CHURN_S
        while time.monotonic() < ends_s:
            due_s = began_s + len(samples)
            until(lambda: time.monotonic() >= min(due_s, ends_s), "a second")  # noqa: B023
            if time.monotonic() >= due_s:
                samples.append(sample(run, began_s))
        if ends_s >= began_s + 60.0 * minutes:
            return samples, counts[0], counts[1]
        victim = chance.choice(NAMES)
        if number % 2:
            living[victim].terminate()
        else:
            living[victim].kill()
        living[victim].wait(60)
        counts[number % 2] += 1
        living[victim] = run.worker(victim, *DELAY)
        if number % 12 == 0:
            progress(f"{number * CHURN_S / 60:.0f} min: {samples[-1] if samples else 'begun'}")
    raise AssertionError("never")


def figures(samples: list[Sample], warm_up_s: float) -> dict[str, Any]:
    """Say how much the server grew after the warm-up."""
    warm = [one for one in samples if one.at_s >= warm_up_s]
    minutes = [one.at_s / 60 for one in warm]
    slope, _ = statistics.linear_regression(minutes, [one.rss_bytes / 1e6 for one in warm])
    first, last = warm[0], warm[-1]
    rounds = last.rounds - first.rounds
    return {
        "rounds": last.rounds,
        "rss_mb": {"first": samples[0].rss_bytes / 1e6, "warm": first.rss_bytes / 1e6, "last": last.rss_bytes / 1e6},
        "rss_growth_mb_per_min": slope,
        "target_mb_per_min": TARGET_MB_PER_MIN,
        "descriptors": thirds([one.descriptors for one in warm]),
        "threads": thirds([one.threads for one in warm]),
        "ledger_bytes_per_round": (last.ledger_bytes - first.ledger_bytes) / rounds,
    }


def thirds(values: list[int]) -> dict[str, float]:
    """Give the medians of the first and the last third, and the largest value."""
    third = len(values) // 3
    return {
        "first": statistics.median(values[:third]),
        "last": statistics.median(values[-third:]),
        "most": max(values),
    }


def soak(folder: Path, minutes: float, warm_up_minutes: float) -> dict[str, Any]:
    """Run it in a folder, and give the figures."""
    with cluster(folder, JOB, *SERVER) as run:
        samples, killed, drained = churn(run, minutes)
        found = figures(samples, 60.0 * warm_up_minutes)
    flat = all(found[what]["last"] <= found[what]["first"] + FLAT for what in ("descriptors", "threads"))
    return {
        "benchmark": "soak",
        "minutes": minutes,
        "warm_up_minutes": warm_up_minutes,
        "workers": len(NAMES),
        "killed": killed,
        "drained": drained,
        **found,
        "holds": flat and found["rss_growth_mb_per_min"] < TARGET_MB_PER_MIN,
    }


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--minutes", type=float, default=15.0)
    arguments.add_argument("--warm-up", type=float, default=3.0, help="minutes that do not count")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = soak(Path(folder), given.minutes, given.warm_up)
    write(found, given.json)
    raise SystemExit(0 if found["holds"] else 1)


if __name__ == "__main__":
    main()
