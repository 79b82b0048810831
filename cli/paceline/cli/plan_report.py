"""What `paceline plan` says: advice in words, the table that it comes from, what each worker is worth, JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from paceline.cli.exit_codes import INTERRUPTED
from paceline.cli.json_file import write_json
from paceline.cli.plan_asked import Asked
from paceline.cli.simulate_report import Watcher
from paceline.cli.wide import print_wide
from paceline.link_rates import written_bytes, written_rate
from paceline.simulation.experiments.worth import (
    ALONE,
    DDP,
    LeftOut,
    Machines,
    Way,
    enough_tasks,
    left_out,
    verdict,
    ways,
)
from paceline.simulation.shapes import parse_shape


def plan_and_report(asked: Asked, json_file: Path | None, plot: Path | None) -> int:
    """Simulate, say what to do, and write what was asked for."""
    machines = Machines(
        names=tuple(asked.means_s),
        means_s=tuple(asked.means_s.values()),
        links=asked.links,
        prices=asked.prices,
        server_link=asked.server_link,
        pull_bytes=asked.pull_bytes,
        push_bytes=asked.push_bytes,
        tasks=asked.tasks,
        law=parse_shape(asked.law),
    )
    with Watcher(Console(stderr=True), asked.rounds * len(asked.policies)) as watcher:
        found = ways(machines, asked.policies, asked.rounds, asked.seed, watcher)
        others = left_out(machines, asked.policies[0], asked.rounds, asked.seed, watcher)
        best, ddp, alone = found[0], found[-2], found[-1]
        go, useless = verdict(best, ddp, alone, others)
        more = None
        if go in (ALONE, DDP):
            more = enough_tasks(machines, best.name, asked.rounds, asked.seed, watcher)
        if watcher.stopped():
            return INTERRUPTED
    lines = list(_advice(machines, (best, ddp, alone), go, useless, more))
    sys.stdout.write("".join(f"{line}\n" for line in lines) + "\n")
    print_wide(_table(machines, found, others), list(_notes(asked, machines)))
    if json_file is not None:
        write_json(json_file, _document(asked, found, others, (go, useless, more), lines))
    if plot is not None:
        from paceline.cli.plan_plot import draw

        sys.stdout.write(f"paceline: figure {draw(found, plot)}\n")
    return 0


def _advice(
    machines: Machines, three: tuple[Way, Way, Way], go: str, useless: Sequence[str], more: int | None
) -> Iterator[str]:
    best, ddp, alone = three
    share = best.transfer_s / best.round_s
    if go == ALONE:
        yield f"Use {alone.name}: {alone.round_s:.3g} s for an update of {machines.tasks} tasks."
    elif go == DDP:
        yield f"Use DDP: {ddp.round_s:.3g} s for an update of {machines.tasks} tasks, if its transfer hides well."
    else:
        yield f"Use paceline with {go}: {best.round_s:.3g} s for an update of {machines.tasks} tasks."
    if go not in (ALONE, DDP):
        yield f"That is {_times(alone, best)} than {alone.name}, and {_times(ddp, best)} than DDP at its best."
        if useless:
            without = "it" if len(useless) == 1 else "one of them"
            yield f"Leave {' or '.join(useless)} out: an update takes about as long without {without}, and costs less."
    else:
        yield (
            f"paceline with {best.name} takes {best.round_s:.3g} s, {share:.0%} of them for transfer"
            f" ({written_bytes(machines.pull_bytes)} to each worker, {written_bytes(machines.push_bytes)} from it)."
        )
        if more is not None:
            yield f"From {more} tasks an update on it would be the fastest of the three."


def _times(slower: Way, faster: Way) -> str:
    ratio = slower.round_s / faster.round_s
    return f"{ratio:.2f} times faster" if ratio >= 1.0 else f"{1 / ratio:.2f} times slower"


def _table(machines: Machines, found: Sequence[Way], others: Sequence[LeftOut]) -> Table:
    table = Table()
    table.add_column("")
    for title in ("update s", "of it transfer", "worker s", "price of 1000, rented", "by use"):
        table.add_column(title, justify="right")
    table.add_column("tasks of each")
    for way in found:
        table.add_row(way.name, *_numbers(way), _shares(machines.names, way.tasks))
    for number, other in enumerate(others):
        if not number:
            table.add_section()
        names = [name for name in machines.names if name != other.worker]
        table.add_row(f"{other.way.name} without {other.worker}", *_numbers(other.way), _shares(names, other.way.tasks))
    return table


def _numbers(way: Way) -> list[str]:
    prices = (f"{1000 * way.rented:.3g}", f"{1000 * way.used:.3g}")
    return [f"{way.round_s:.3g}", f"{way.transfer_s / way.round_s:.0%}", f"{way.busy_s:.3g}", *prices]


def _shares(names: Sequence[str], tasks: Sequence[float]) -> str:
    shown = [f"{name} {count:.3g}" for name, count in zip(names, tasks, strict=True)]
    return " ".join(shown[:8]) + (f" and {len(shown) - 8} more" if len(shown) > 8 else "")


def _notes(asked: Asked, machines: Machines) -> Iterator[str]:
    links = " and ".join(written_rate(link) for link in sorted(set(asked.links)))
    yield (
        f"{len(machines.names)} workers, speeds {asked.source}, law {asked.law}; links of {links}, the server's of"
        f" {written_rate(asked.server_link)}; {asked.rounds} rounds of each policy simulated, seed {asked.seed}."
    )
    yield "Rented: all machines are paid for as long as an update takes; by use: while they compute or transfer."
    yield "Transfer is a formula, and too pessimistic where it overlaps with others' computing: see docs/plan.md."


def _document(
    asked: Asked,
    found: Sequence[Way],
    others: Sequence[LeftOut],
    judged: tuple[str, Sequence[str], int | None],
    lines: Sequence[str],
) -> dict[str, Any]:
    go, useless, more = judged
    return {
        "asked": asdict(asked),
        "use": go,
        "leave_out": list(useless),
        "enough_tasks": more,
        "words": list(lines),
        "ways": [asdict(way) for way in found],
        "without": [{"worker": other.worker, **asdict(other.way)} for other in others],
    }
