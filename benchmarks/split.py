"""Does it find the best split? Workers of 10, 20, 40 and 80 ms per task, 23 tasks per round.

    python -m benchmarks.split [--json FILE] [--rounds 600]

`fixed`: the median round beside the oracle's 130 ms (the largest sum of task times under the exact minimiser 13, 6, 3,
1), and beside the same sum of the task seconds that were recorded: what is left then is messages and the update.
`ata-empirical`: the cumulative round time beside that of the pure algorithm simulated with the recorded means, as the
median over 20 seeds of its random draws, and beside the oracle's.
"""

import statistics
from typing import Any

import numpy as np

from benchmarks.measuring import parser, progress, train, write
from paceline.allocation import allocate, ata_empirical_scores, constant_for
from paceline.server.ledger_reader import LedgerReader

TASKS = 23
DELAYS_S = (0.01, 0.02, 0.04, 0.08)
ORACLE_S = 0.13


def measure(policy: str, rounds: int, *args: str) -> tuple[list[float], list[float]]:
    """Give the seconds of each round, and each worker's mean task seconds."""
    laws = ",".join(f"const:{delay}" for delay in DELAYS_S)

    def read(ledger: LedgerReader) -> tuple[list[float], list[float]]:
        seconds = [record.seconds for record in ledger.rounds()]
        tasks: dict[str, list[float]] = {}
        for lease in ledger.leases():
            tasks.setdefault(lease.worker, []).extend(result.seconds for result in lease.results)
        return seconds, [statistics.fmean(tasks[name]) for name in sorted(tasks)]

    numbers = ("--workers", "4", "--tasks", str(TASKS), "--rounds", str(rounds), "--micro-batch", "4")
    _, found = train("tests/jobs.py:Tiny", *numbers, "--delay", laws, "--policy", policy, *args, read=read)
    return found  # type: ignore[no-any-return]


def simulate(means_s: list[float], rounds: int, seed: int) -> list[float]:
    """Seconds of each round of the pure algorithm with constant task times."""
    rng, means = np.random.default_rng(seed), np.array(means_s)
    done, busy_s = np.zeros(len(means), dtype=np.int64), np.zeros(len(means))
    constant, seconds = constant_for("ata-empirical", "paper"), []
    for number in range(1, rounds + 1):
        scores = ata_empirical_scores(done, busy_s, np.full(len(means), number), constant)
        tasks = allocate(scores, TASKS, rng)
        seconds.append(float((tasks * means).max()))
        done += tasks
        busy_s += tasks * means
    return seconds


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--rounds", type=int, default=600)
    given = arguments.parse_args()
    progress(f"fixed, {given.rounds} rounds")
    fixed, fixed_means_s = measure("fixed", given.rounds, "--means", ",".join(str(delay) for delay in DELAYS_S))
    tasks = allocate(np.array(DELAYS_S), TASKS, np.random.default_rng(0))
    recorded_s = float((tasks * np.array(fixed_means_s)).max())
    progress(f"ata-empirical, {given.rounds} rounds")
    learned, means_s = measure("ata-empirical", given.rounds)
    simulated = [simulate(means_s, given.rounds, seed) for seed in range(20)]
    total_s = statistics.median(sum(run) for run in simulated)
    marks: dict[str, Any] = {
        str(k): {
            "measured_to_oracle": sum(learned[:k]) / (k * ORACLE_S),
            "simulated_to_oracle": statistics.median(sum(run[:k]) for run in simulated) / (k * ORACLE_S),
        }
        for k in (50, 500)
        if k <= given.rounds
    }
    write(
        {
            "benchmark": "split",
            "rounds": given.rounds,
            "oracle_round_s": ORACLE_S,
            "fixed_median_round_s": statistics.median(fixed),
            "fixed_to_oracle": statistics.median(fixed) / ORACLE_S,
            "fixed_target": 1.10,
            "fixed_mean_task_s": fixed_means_s,
            "fixed_to_recorded_task_seconds": statistics.median(fixed) / recorded_s,
            "ata_empirical_mean_task_s": means_s,
            "ata_empirical_total_s": sum(learned),
            "ata_empirical_simulated_total_s": total_s,
            "ata_empirical_to_simulated": sum(learned) / total_s,
            "ata_empirical_target": 1.05,
            "cumulative": marks,
        },
        given.json,
    )


if __name__ == "__main__":
    main()
