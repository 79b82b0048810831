"""How long a killed process costs: a worker's tasks until they are planned again, the server until the next commit.

    python -m benchmarks.chaos.recovery_times [--json FILE] [--repetitions N]

Processes are killed with SIGKILL at random moments of rounds of some 0.2 s. A worker's loss plans its tasks again in
the same step, so the log's time of the loss is that of the new plan. The server is started again at once, as a
supervisor does, and its workers find it by themselves; `started` is when the new process serves, which is mostly the
import of torch. Times are the wall clock's of one machine, in seconds.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.measuring import parser, progress, write
from tests.system.cluster import Cluster, cluster, until

JOB = "tests/jobs.py:DigitsLike"
NAMES = ("a", "b", "c", "d")
SERVER = (
    *("--rounds", "100000000", "--tasks", "8", "--micro-batch", "8", "--min-workers", str(len(NAMES))),
    *("--policy", "uniform", "--sums", "exact", "--checkpoint-every", "5"),
)
DELAY = ("--delay", "const:0.1")
TARGET_WORKER_S, TARGET_SERVER_S = 2.0, 5.0


def pause(chance: random.Random) -> None:
    """Let a random part of some rounds pass."""
    ends_s = time.monotonic() + chance.uniform(0.5, 1.5)
    until(lambda: time.monotonic() >= ends_s, "a pause")


def all_ready(run: Cluster) -> bool:
    """Tell whether every worker has joined."""
    states = [worker["state"] for worker in run.status().get("workers", [])]
    return len(states) == len(NAMES) and set(states) <= {"free", "busy"}


def worker_losses(run: Cluster, repetitions: int, chance: random.Random) -> list[float]:
    """Seconds from each kill of a worker to the plan without it."""
    living = {name: run.processes[name] for name in NAMES}
    times = []
    for _ in range(repetitions):
        until(lambda: all_ready(run), "all workers are ready")
        pause(chance)
        victim, before = chance.choice(NAMES), len(run.logged("worker lost"))
        at = time.time()
        living[victim].kill()
        living[victim].wait(10)
        until(lambda: len(run.logged("worker lost")) > before, "the worker is lost")  # noqa: B023
        times.append(run.logged("worker lost")[before]["at"] - at)
        living[victim] = run.worker(victim, *DELAY)
        progress(f"worker {victim}: {times[-1]:.2f} s")
    until(lambda: all_ready(run), "all workers are ready")
    return times


def server_losses(run: Cluster, repetitions: int, chance: random.Random) -> tuple[list[float], list[float]]:
    """Seconds from each kill of the server until the next one serves, and until its first commit."""
    started, committed = [], []
    for _ in range(repetitions):
        pause(chance)
        at = time.time()
        run.server.kill()
        run.server.wait(10)
        run.resume()
        until(lambda: run.logged("first round done"), f"a round\n{run.all_logs()}")
        started.append(next(line["at"] for line in run.logged() if " serves " in line["event"]) - at)
        committed.append(run.logged("first round done")[0]["at"] - at)
        progress(f"server: serves after {started[-1]:.2f} s, commits after {committed[-1]:.2f} s")
        until(lambda: all_ready(run), f"all workers are back\n{run.all_logs()}")
    return started, committed


def spread(times: list[float]) -> dict[str, float]:
    """Give median and extremes."""
    return {"median": statistics.median(times), "min": min(times), "max": max(times)}


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--repetitions", type=int, default=11)
    given = arguments.parse_args()
    chance = random.Random(5)
    with tempfile.TemporaryDirectory() as folder, cluster(Path(folder), JOB, *SERVER, json_log=True) as run:
        for name in NAMES:
            run.worker(name, *DELAY)
        run.at_round(10)
        workers = worker_losses(run, given.repetitions, chance)
        started, committed = server_losses(run, given.repetitions, chance)
    write(
        {
            "benchmark": "recovery_times",
            "repetitions": given.repetitions,
            "worker_kill_to_planned_again_s": spread(workers),
            "target_worker_s": TARGET_WORKER_S,
            "server_kill_to_serving_s": spread(started),
            "server_kill_to_first_commit_s": spread(committed),
            "target_server_s": TARGET_SERVER_S,
        },
        given.json,
    )


if __name__ == "__main__":
    main()
