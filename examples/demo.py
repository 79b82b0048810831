"""The demo: one model, five workers of different speed, three policies. Started by `make demo`.

Each run trains the CNN of examples/digits.py from the same seed, with a server process and five worker processes that
speak gRPC over loopback. The workers are made unequal by delays, since on one machine they would all be alike; what
the policies learn and decide is measured, nothing is simulated.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from paceline.cli.commands import RunCommand
from paceline.cli.json_file import write_json
from paceline.cli.local_run import RunEnd, run_locally
from paceline.cli.progress import make_progress
from paceline.errors import PacelineError

POLICIES = ("ata-empirical", "greedy", "uniform")
# Seconds that a task takes beside some 5 ms of computing: so two cores carry five such workers.
DELAYS_S = (0.02, 0.03, 0.04, 0.06, 0.12)
ROUNDS = 200
TASKS = 6
MICRO_BATCH = 32
ACCURACY = 0.97

Summary = Mapping[str, Any]


def main() -> int:
    """Run the three policies, print what was measured, and check the demo's promises."""
    arguments = _arguments()
    console = Console()
    if not console.is_terminal:
        # A file has no width of its own; the tables need this much.
        console = Console(width=100)
    console.print(
        f"[bold]Digits, five workers, three policies[/bold]: {arguments.rounds} rounds of {TASKS} tasks"
        f" of {MICRO_BATCH} samples each, seed {arguments.seed}, exact sums\n"
    )
    folder = arguments.folder / time.strftime("%Y%m%d-%H%M%S")
    summaries: dict[str, Summary] = {}
    for number, policy in enumerate(POLICIES, start=1):
        end = run(
            policy, arguments.rounds, arguments.seed, folder / policy, console, f"{number}/{len(POLICIES)} {policy}"
        )
        if end.outcome != "done":
            console.print(f"{policy}: {end.outcome}: {end.reason}")
            return end.exit_code
        summaries[policy] = end.summary
    broken = broken_promises(summaries)
    report(console, summaries)
    for promise in broken:
        console.print(f"[bold red]BROKEN:[/bold red] {promise}")
    path = arguments.folder / "summary.json"
    write_json(path, {"rounds": arguments.rounds, "delays_s": DELAYS_S, "policies": summaries, "broken": broken})
    console.print(f"\nAll figures: {path}; models and ledgers: {folder}")
    return 1 if broken else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds of each run (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--folder", type=Path, default=Path("runs/demo"), help="default: %(default)s")
    return parser.parse_args()


def run(policy: str, rounds: int, seed: int, run_dir: Path, console: Console, title: str) -> RunEnd:
    """Train once, with live progress."""
    command = RunCommand.model_validate(
        {
            "job": f"{Path(__file__).with_name('digits.py')}:Digits",
            "policy": policy,
            "rounds": rounds,
            "tasks": TASKS,
            "micro_batch": MICRO_BATCH,
            "seed": seed,
            "sums": "exact",
            "workers": len(DELAYS_S),
            "delay": ",".join(f"const:{delay_s}" for delay_s in DELAYS_S),
            "run_dir": run_dir,
        }
    )
    return run_locally(command, make_progress(console, title))


def broken_promises(summaries: Mapping[str, Summary]) -> list[str]:
    """Say which of the demo's promises the runs did not hold."""
    broken = []
    ours, uniform = summaries["ata-empirical"]["fingerprint"], summaries["uniform"]["fingerprint"]
    if ours != uniform:
        broken.append(f"ata-empirical and uniform gave different models, {ours} and {uniform}: expected the same")
    for policy, summary in summaries.items():
        accuracy = summary["metrics"]["accuracy"]
        # A shortened demo cannot reach it.
        if summary["rounds"] >= ROUNDS and accuracy < ACCURACY:
            broken.append(f"{policy} reached {accuracy:.1%} on the test images: expected at least {ACCURACY:.0%}")
    return broken


def report(console: Console, summaries: Mapping[str, Summary]) -> None:
    """Print the tables and what they say."""
    console.print(policy_table(summaries))
    console.print(worker_table(summaries))
    for line in findings(summaries):
        console.print(f"- {line}", highlight=False)


def policy_table(summaries: Mapping[str, Summary]) -> Table:
    """Draw a row per policy."""
    table = _table("policy", "time s", "worker s", "of it wasted", "tasks used", "wasted", "accuracy", "model")
    for policy, summary in summaries.items():
        table.add_row(
            policy,
            f"{summary['wall_s']:.1f}",
            f"{summary['worker_s']:.1f}",
            f"{summary['wasted_worker_s']:.1f}",
            str(summary["tasks"]["used"]),
            str(summary["tasks"]["wasted"]),
            f"{summary['metrics']['accuracy']:.1%}",
            summary["fingerprint"][:16],
        )
    return table


def worker_table(summaries: Mapping[str, Summary]) -> Table:
    """Draw a row per worker: its delay, what ata-empirical learned, and its tasks per round under each policy."""
    policies = list(summaries)
    table = _table("worker", "delay s", "learned s/task", "+-", *(f"tasks/round\n{policy}" for policy in policies))
    by_policy = {policy: {worker["name"]: worker for worker in summaries[policy]["workers"]} for policy in policies}
    for number, delay_s in enumerate(DELAYS_S, start=1):
        name = f"w{number}"
        learned = by_policy["ata-empirical"][name]
        per_round = [by_policy[policy][name]["tasks"] / summaries[policy]["rounds"] for policy in policies]
        table.add_row(
            name,
            f"{delay_s:.3f}",
            _seconds(learned["mean_task_s"]),
            _seconds(learned["radius_s"]),
            *(f"{tasks:.1f}" for tasks in per_round),
        )
    return table


def findings(summaries: Mapping[str, Summary]) -> Sequence[str]:
    """Say in words what was measured, whoever it favours."""
    ours, greedy, uniform = (summaries[policy] for policy in POLICIES)
    lines = []
    if ours["fingerprint"] == uniform["fingerprint"]:
        lines.append(
            "ata-empirical and uniform gave the same model, bit for bit, though other workers computed other tasks:"
            " with exact sums the model depends on the seed, not on the cluster, so a run can be repeated and checked"
            " on other machines."
        )
    if greedy["fingerprint"] != ours["fingerprint"]:
        lines.append("greedy gave another model: it uses whichever tasks are finished first; its ledger says which.")
    lines.append(_compare("ata-empirical", ours, "uniform", uniform))
    lines.append(_compare("ata-empirical", ours, "greedy", greedy))
    fastest = min(summaries, key=lambda policy: float(summaries[policy]["wall_s"]))
    cheapest = min(summaries, key=lambda policy: float(summaries[policy]["worker_s"]))
    lines.append(f"Fastest here: {fastest}. Fewest worker seconds here: {cheapest}.")
    return lines


def _compare(name: str, one: Summary, other_name: str, other: Summary) -> str:
    return (
        f"{name} against {other_name}: {one['wall_s'] / other['wall_s']:.2f} times the time,"
        f" {one['worker_s'] / other['worker_s']:.2f} times the worker seconds."
    )


def _table(first: str, *headings: str) -> Table:
    table = Table(first)
    for heading in headings:
        table.add_column(heading, justify="right")
    return table


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except PacelineError as error:
        sys.exit(f"demo: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
