"""Does it save? The paper's law on real processes: 17 workers, shifted exponential times, means as sqrt(i), B = 23.

    python -m benchmarks.savings [--json FILE] [--rounds 150] [--unit-ms 1.0]

Worker i takes c + Exp(c) per task with c = 29 sqrt(i) units, as in the paper's main experiment. States the ratios of
its table 1: worker seconds of greedy to those of a policy (larger is better), run time of a policy to that of greedy.
"""

import math

from benchmarks.measuring import parser, progress, train, write

WORKERS, TASKS = 17, 23
PAPER = {"greedy": (1.0, 1.0), "ata-empirical": (1.26, 1.75), "ata-empirical, constants as printed": (1.26, 1.74)}
POLICIES = ("greedy", "uniform", "ata-empirical")


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--rounds", type=int, default=150)
    arguments.add_argument("--unit-ms", type=float, default=1.0, help="milliseconds per unit of the paper's times")
    given = arguments.parse_args()
    laws = ",".join(f"shifted-exp:{0.029 * math.sqrt(i) * given.unit_ms:.6g}" for i in range(1, WORKERS + 1))
    found = {}
    for policy in POLICIES:
        progress(f"{policy}, {given.rounds} rounds")
        summary, _ = train(
            "tests/jobs.py:Tiny",
            *("--workers", str(WORKERS), "--tasks", str(TASKS), "--rounds", str(given.rounds), "--micro-batch", "4"),
            *("--policy", policy, "--delay", laws, "--delay-seed", "1"),
        )
        found[policy] = summary
    greedy = found["greedy"]
    write(
        {
            "benchmark": "savings",
            "rounds": given.rounds,
            "unit_ms": given.unit_ms,
            "policies": {
                policy: {
                    "wall_s": summary["wall_s"],
                    "worker_s": summary["worker_s"],
                    "wasted_worker_s": summary["wasted_worker_s"],
                    "work_ratio": greedy["worker_s"] / summary["worker_s"],
                    "runtime_ratio": summary["wall_s"] / greedy["wall_s"],
                }
                for policy, summary in found.items()
            },
            "paper_table_1_work_and_runtime_ratio": PAPER,
        },
        given.json,
    )


if __name__ == "__main__":
    main()
