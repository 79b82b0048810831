"""Rounds per second of a real run whose tasks cost next to nothing: what paceline itself costs.

    python -m benchmarks.rounds [--json FILE] [--repetitions N] [--rounds N]

4 workers, 1,000 parameters, everything inline, ledger on. The limit stated beside it is what the same two cores need
for the gradients and updates of a round alone, in one process without any wire, measured in the same run.
"""

import statistics
import time

import torch

from benchmarks.measuring import parser, progress, rounds_of, train, write
from paceline.coordination.effects import RoundRecord
from paceline.flat import build_model
from paceline.gradients import ComputeSettings, TaskRunner
from paceline.loading import load_job
from paceline.update import Updater

JOB = "tests/jobs.py:Tiny"
WORKERS, TARGET = 4, 250.0


def rounds_per_second(rounds: int) -> float:
    records: list[RoundRecord]
    _, records = train(
        JOB,
        *("--workers", str(WORKERS), "--tasks", str(WORKERS), "--policy", "uniform", "--rounds", str(rounds)),
        read=rounds_of,
    )
    settled = records[len(records) // 10 :]
    return len(settled) / (settled[-1].opened_s + settled[-1].seconds - settled[0].opened_s)


def compute_alone(rounds: int) -> float:
    """Rounds per second if four gradients and one update were all there is, on two cores."""
    torch.set_num_threads(1)
    job = load_job(JOB)
    flat = build_model(job, 0)
    runner = TaskRunner(job, flat, job.dataset(), ComputeSettings(seed=0, micro_batch=32))
    updater, total = Updater(job, flat), runner.new_sum()
    gradients_s = updates_s = 0.0
    for number in range(rounds):
        start = time.perf_counter()
        for task in range(WORKERS * number, WORKERS * (number + 1)):
            gradient = runner.compute(runner.load(task))
            if gradient is not None:
                runner.accumulate(total, gradient)
        middle = time.perf_counter()
        updater.apply(total, 32 * WORKERS, 32 * WORKERS, 0.0)
        total.zero_()
        gradients_s += middle - start
        updates_s += time.perf_counter() - middle
    return rounds / (gradients_s / 2 + updates_s)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--repetitions", type=int, default=5)
    arguments.add_argument("--rounds", type=int, default=1500)
    given = arguments.parse_args()
    measured, limits = [], []
    for number in range(given.repetitions):
        limits.append(compute_alone(500))
        measured.append(rounds_per_second(given.rounds))
        progress(f"{number + 1} of {given.repetitions}: {measured[-1]:.0f} rounds/s, compute alone {limits[-1]:.0f}")
    median, limit = statistics.median(measured), statistics.median(limits)
    write(
        {
            "benchmark": "rounds",
            "workers": WORKERS,
            "rounds": given.rounds,
            "rounds_per_s": {"median": median, "min": min(measured), "max": max(measured)},
            "target_rounds_per_s": TARGET,
            "limit": "gradients on two cores and updates alone, one process, no wire",
            "limit_rounds_per_s": limit,
            "ratio_to_limit": median / limit,
        },
        given.json,
    )


if __name__ == "__main__":
    main()
