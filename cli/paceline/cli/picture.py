"""Draws a run in progress from its status: words, a bar, and a line for each worker, as there is room."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.text import Text

from paceline.coordination.snapshot import WAITS_MUCH

Status = Mapping[str, Any]

# With fewer columns workers share lines.
WIDE = 100
BAR = 60
# What remains of a run below a second is not worth saying.
_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a run goes: rounds and samples a second, 0 while nothing is known."""

    rounds: float = 0.0
    samples: float = 0.0


@dataclass(frozen=True, slots=True)
class Room:
    """What there is to draw on, in characters."""

    width: int
    height: int


def headline(status: Status, pace: Pace) -> str:
    """Say in one line how a run goes, what is most wanted first."""
    if status["state"] == "waiting" or not status["version"]:
        return str(status["situation"] or status["state"])
    parts = [f"round {status['version']}" + (f" of {status['rounds']}" if status["rounds"] else "")]
    left = max(0, status["rounds"] - status["version"])
    if pace.rounds and left:
        parts.append(f"{written_s(left / pace.rounds)} to go")
    if status.get("loss") is not None:
        parts.append(f"loss {status['loss']:.4f}")
    for shown in (status.get("means") or {}, status["metrics"]):
        parts += [f"{name} {value:.4g}" for name, value in sorted(shown.items()) if value is not None]
    if pace.rounds:
        parts.append(f"{pace.rounds:.3g} rounds/s")
    if pace.samples:
        parts.append(f"{pace.samples:.4g} samples/s")
    if status.get("cost") is not None:
        parts.append(f"cost {status['cost']:.4g}")
    return ", ".join(parts)


def written_s(seconds: float) -> str:
    """Write a span of time in two units at most: 3d4h, 2h05m, 1m07s, 42s."""
    rest = max(1, round(seconds))
    for number, (unit, size) in enumerate(_UNITS):
        if rest >= size:
            count, rest = divmod(rest, size)
            if unit == "s" or (unit == "d" and rest < 3600):
                return f"{count}{unit}"
            smaller, of = _UNITS[number + 1]
            return f"{count}{unit}{rest // of:02}{smaller}"
    return "1s"


def draw(status: Status, pace: Pace, room: Room, title: str = "") -> RenderableType:
    """Draw a run: how it goes, a bar where the end is known, the tasks so far, its workers, and the last decision.

    No line is longer than the room is wide: what does not fit ends in an ellipsis.
    """
    head = _line("")
    head.append(f"{title}  " if title else "", style="bold")
    head.append(headline(status, pace))
    rows: list[RenderableType] = [head]
    total, done = status["rounds"], status["version"]
    if total:
        # A bar alone ends no line.
        bar = ProgressBar(total=total, completed=min(done, total), width=min(BAR, room.width))
        rows.append(Padding(bar, 0))
    if status.get("tasks_used"):
        rows.append(_line(_sums(status)))
    workers = status.get("workers") or []
    most = max(1, room.height - len(rows) - 4)
    rows += [_line(text) for text in _workers(workers, room.width, most)]
    if status.get("decision"):
        rows.append(_line(f"last decision: {status['decision']}", "dim"))
    return Group(*rows)


def _line(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _sums(status: Status) -> str:
    wasted = f", {status['tasks_wasted']} wasted" if status["tasks_wasted"] else ""
    saved = f"; checkpoint of round {status['checkpoint']}" if status["checkpoint"] else ""
    return f"{status['tasks_used']} tasks used{wasted}; {status['worker_s']:.1f} worker seconds{saved}"


def _workers(workers: Sequence[Mapping[str, Any]], width: int, most: int) -> Iterator[str]:
    if not workers:
        yield "no workers yet"
    elif width < WIDE:
        yield from _together(workers, width, most)
    else:
        longest = max(len(worker["name"]) for worker in workers)
        shown = workers if len(workers) <= most else workers[: most - 1]
        for worker in shown:
            yield _worker(worker, longest)
        if len(shown) < len(workers):
            yield f"and {len(workers) - len(shown)} more workers"


def _worker(worker: Mapping[str, Any], longest: int) -> str:
    mean_s, radius_s = worker["mean_task_s"], worker["radius_s"]
    learned = "not known yet" if mean_s is None else f"{mean_s:.4g} s/task"
    if mean_s is not None and radius_s is not None:
        learned += f" +- {radius_s:.2g}"
    tasks = f"{worker['allocation']} tasks now" if worker["allocation"] != 1 else "1 task now"
    says = worker["note"]
    if worker["data_share"] >= WAITS_MUCH:
        says = f"waits for data {worker['data_share']:.0%} of the time" + (f"; {says}" if says else "")
    line = (
        f"{worker['name']:<{longest}}  {worker['state']:<8}  {tasks:<14}  {learned:<26}  {worker['tasks_done']:>7} done"
    )
    return f"{line}  {says}".rstrip()


def _together(workers: Sequence[Mapping[str, Any]], width: int, most: int) -> Iterator[str]:
    """Put workers with their present tasks side by side."""
    words = [f"{worker['name']} {worker['allocation']}" for worker in workers]
    line, lines = "tasks now:", 0
    for number, word in enumerate(words):
        if len(line) + 1 + len(word) > width:
            yield line
            line, lines = "", lines + 1
            if lines == most - 1:
                yield f"  and {len(words) - number} more workers"
                return
        line += f" {word}"
    yield line
