"""Three million rounds of one policy of `ata-sqrt` with 459 workers on one core, beside drawing its times alone.

    python -m benchmarks.simulation [--json FILE] [--policy NAME] [--workers N] [--rounds K]

The limit: as many draws from the same streams as the policy's workers did tasks, and nothing else. Compiling is counted
in neither. Memory: the largest resident size of `paceline simulate`, greedy included, at a tenth of the rounds and at
all of them.
"""

import os
import subprocess
import sys
import time

import numpy as np
import numpy.typing as npt

from benchmarks.measuring import parser, progress, write
from paceline.simulation.compiled.jit import compiled
from paceline.simulation.compiled.streams import starting_streams, task_s
from paceline.simulation.experiments.experiment import Changes, Variant, experiment
from paceline.simulation.experiments.listener import Nobody
from paceline.simulation.experiments.presets import preset
from paceline.simulation.experiments.running import simulate_compiled
from paceline.simulation.shapes import Laws

PRESET = "ata-sqrt"
TARGET_S = 60.0
POLICIES = ("ata-empirical", "ata", "uniform", "fixed")


@compiled
def _draw(
    kinds: npt.NDArray[np.int64],
    parameters: npt.NDArray[np.float64],
    streams: npt.NDArray[np.uint64],
    tasks: npt.NDArray[np.int64],
) -> float:
    total_s = 0.0
    for worker in range(len(tasks)):
        for _ in range(tasks[worker]):
            total_s += task_s(kinds, parameters, streams, worker)
    return total_s


def draws_alone_s(laws: Laws, tasks: npt.NDArray[np.int64], seed: int) -> float:
    """Take the time of drawing so many tasks' times for each worker."""
    _draw(laws.kinds, laws.parameters, starting_streams(laws.workers, seed), tasks[:1] * 0)
    began_s = time.perf_counter()
    _draw(laws.kinds, laws.parameters, starting_streams(laws.workers, seed), tasks)
    return time.perf_counter() - began_s


def peak_mib(policy: str, workers: int, rounds: int) -> float:
    """Measure the largest resident size of the command."""
    command = [sys.executable, "-m", "paceline.cli", "simulate", PRESET, "--policy", policy]
    command += ["--workers", str(workers), "--rounds", str(rounds)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} ended with {status}")
    return usage.ru_maxrss / 1024


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--policy", choices=POLICIES, default=POLICIES[0])
    arguments.add_argument("--workers", type=int, default=459)
    arguments.add_argument("--rounds", type=int, default=3_000_000)
    given = arguments.parse_args()
    asked = experiment(preset(PRESET), Changes(workers=given.workers, rounds=given.rounds))
    progress(f"{given.policy}, {given.workers} workers, {given.rounds:,} rounds")
    result = simulate_compiled(Variant(given.policy), asked.setting(0), given.rounds, Nobody())
    assert result is not None
    progress("the draws alone")
    limit_s = draws_alone_s(asked.laws, np.array(result.tasks_per_worker), 0)
    peaks = {}
    for rounds in (given.rounds // 10, given.rounds):
        progress(f"memory at {rounds:,} rounds")
        peaks[str(rounds)] = round(peak_mib(given.policy, given.workers, rounds), 1)
    write(
        {
            "preset": PRESET,
            "policy": given.policy,
            "workers": given.workers,
            "tasks": result.tasks,
            "rounds": given.rounds,
            "seconds": result.seconds,
            "target_s": TARGET_S,
            "limit": "as many draws from the same streams",
            "limit_s": limit_s,
            "ratio_to_limit": round(result.seconds / limit_s, 1),
            "peak_mib_at_rounds": peaks,
        },
        given.json,
    )


if __name__ == "__main__":
    main()
