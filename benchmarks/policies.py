"""Every policy on real workers: the digits job to 95 % test accuracy, over gRPC, with five unequal workers.

    python -m benchmarks.policies [--json FILE] [--policy NAME,...] [--markdown]

Workers take 20, 30, 40, 60 and 120 ms per task beside their computing; 6 tasks of 32 samples a round where the policy
uses a batch, K or r = 3 of the 5 workers where it employs them, one task per update in the asynchronous ones that
make an update of each result (these with plain SGD: staleness is momentum enough). Same seed, exact sums. Then the
run is made again from its ledger in one process (`paceline replay`), which must give the same bits.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.measuring import ROOT, parser, progress, write
from paceline.coordination.policies import ASYNCHRONOUS, EMPLOYING, POLICY_NAMES, SINGLE_RESULT

DELAYS_S = (0.02, 0.03, 0.04, 0.06, 0.12)
TASKS, EMPLOYED, GOAL = 6, 3, 0.95
ROUNDS = 600
MEANS = ("--means", ",".join(str(delay) for delay in DELAYS_S))
MORE: dict[str, tuple[str, ...]] = {
    "fixed": MEANS,
    "cmab-oracle": MEANS,
    "cmab-lcb": ("--mean-max", "0.13"),
    "cmab-kl": ("--switch-at", "every:40"),
    "adaptive-k-sync": ("--k-burn-in", "20"),
    "malenia": ("--partition", "5"),
}


def arguments_of(policy: str) -> list[str]:
    """Give the command line of a policy's run."""
    tasks = EMPLOYED if policy in EMPLOYING or policy == "k-batch-async" else TASKS
    per_update = 1 if policy in SINGLE_RESULT else tasks
    given = ["--workers", str(len(DELAYS_S)), "--delay", ",".join(f"const:{delay}" for delay in DELAYS_S)]
    given += ["--micro-batch", "32", "--seed", "1", "--sums", "exact", "--policy", policy, "--tasks", str(tasks)]
    given += ["--until", f"accuracy>={GOAL}", "--rounds", str(ROUNDS * TASKS // per_update)]
    given += ["--eval-every", str(max(1, 12 // per_update))]
    return [*given, *MORE.get(policy, ())]


def measure(policy: str) -> dict[str, Any]:
    """Train and replay."""
    with tempfile.TemporaryDirectory() as folder:
        run, out, verdict = (Path(folder) / name for name in ("run", "out.json", "replay.json"))
        job = "examples/digits.py:" + ("DigitsPlain" if policy in SINGLE_RESULT else "Digits")
        _paceline("run", job, *arguments_of(policy), "--run-dir", str(run), "--json", str(out))
        _paceline("replay", str(run), "--json", str(verdict))
        summary, replay = json.loads(out.read_text()), json.loads(verdict.read_text())
    tasks = summary["tasks"]
    return {
        "policy": policy,
        "arguments": arguments_of(policy),
        "accuracy": summary["metrics"]["accuracy"],
        # The last version is a few updates younger than the one that met the goal.
        "reached": "accuracy" in summary["reason"],
        "updates": summary["rounds"],
        "wall_s": summary["wall_s"],
        "worker_s": summary["worker_s"],
        "wasted_worker_s": summary["wasted_worker_s"],
        "tasks_used": tasks["used"],
        "tasks_wasted": tasks["wasted"],
        "staleness": summary["staleness"],
        "replay": replay["verdict"],
        "asynchronous": policy in ASYNCHRONOUS,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Write the rows as the table of docs/policies.md."""
    lines = [
        "| policy | updates | time s | worker s | of it wasted | tasks used | staleness mean, max | replay |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        stale = row["staleness"]
        lines.append(
            f"| `{row['policy']}` | {row['updates']} | {row['wall_s']:.1f} | {row['worker_s']:.1f} "
            f"| {row['wasted_worker_s']:.1f} | {row['tasks_used']} | {stale['mean']:.1f}, {stale['max']} "
            f"| {row['replay']} |"
        )
    return "\n".join(lines)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--policy", default=",".join(POLICY_NAMES), help="names, separated by commas")
    arguments.add_argument("--markdown", action="store_true", help="print the table for docs/policies.md too")
    given = arguments.parse_args()
    rows = []
    for policy in given.policy.split(","):
        progress(policy)
        rows.append(measure(policy))
    write({"benchmark": "policies", "goal": f"accuracy>={GOAL}", "rows": rows}, given.json)
    if given.markdown:
        print(table(rows))


def _paceline(*args: str) -> None:
    command = [sys.executable, "-m", "paceline.cli", *args]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}")


if __name__ == "__main__":
    main()
