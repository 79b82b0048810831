"""What does the live page cost: bytes a minute to one browser, and seconds of the server's processor.

    python -m benchmarks.page [--json FILE] [--workers 5,400] [--seconds 60] [--round-seconds 1] [--screenshots DIR]

Rounds of ata-empirical are simulated beforehand (shifted-exponential task times, means sqrt(i)), and told to the page's
books at the pace of --round-seconds; a real headless Chromium looks on and counts what it receives. The process does
nothing else, so its processor seconds, less those of the same time without a page, are the page's whole price. Targets:
200 KB a minute, 2 % of a core. --screenshots keeps what the browser saw at the end.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc

from benchmarks.measuring import parser, progress, write
from paceline.coordination.effects import RoundRecord
from paceline.coordination.snapshot import Snapshot, WorkerSnapshot
from paceline.server.history import History
from paceline.server.picture import Picture
from paceline.server.status import Situation
from paceline.server.totals import Totals
from paceline.server.webpage import WebPage
from paceline.settings import RunSettings
from paceline.simulation.experiments.coordinated import run_on_coordinator
from paceline.simulation.setting import Setting
from paceline.simulation.shapes import parse_shape, scaled
from tests.browser import browsing

BEFORE = 50  # rounds that are over when the browser comes
MOST_BYTES_PER_MINUTE, MOST_SHARE = 200_000, 0.02


class Books:
    """What a server's books hold of a run, told round by round."""

    def __init__(self, settings: RunSettings, records: Sequence[RoundRecord]) -> None:
        self._records = iter(records)
        self._last = records[0]
        self.totals, self.history = Totals(), History(settings.radius_constant())
        self._picture = Picture(settings, self.totals, self.history)

    def round(self, *, told: bool) -> None:
        """Commit a round; the history hears of it only where a page is served."""
        self._last = next(self._records)
        self.totals.observe(self._last)
        if told:
            self.history.add(self._last)

    def document(self, has: Any) -> dict[str, Any]:
        """Give what is new."""
        pairs = self.history.learned(self._last.round).tolist()
        learned = dict(zip(self.history.learners, pairs, strict=True))
        allocation = dict(self._last.allocation)
        workers = tuple(
            WorkerSnapshot(
                name=name,
                state="busy" if name in allocation else "free",
                device="cpu",
                address="",
                tasks_done=0,
                busy_s=0.0,
                mean_task_s=mean_s,
                radius_s=radius_s,
                allocation=allocation.get(name, 0),
                pace=None,
            )
            for name, (mean_s, radius_s) in sorted(learned.items(), key=lambda item: (len(item[0]), item[0]))
        )
        number = self._last.round
        snapshot = Snapshot(
            state="training", situation="", round=number, version=number, reason=self._last.reason, workers=workers
        )
        return self._picture.document(snapshot, Situation(rounds=0, elapsed_s=0.0, run_dir="runs/simulated"), has)


async def tell_rounds(books: Books, every_s: float, until: Callable[[], bool], *, told: bool) -> float:
    """Commit rounds until something is so.

    Returns:
        share of a core that this process took meanwhile.
    """
    cpu_s, wall_s = time.process_time(), time.monotonic()
    while not until():
        books.round(told=told)
        await asyncio.sleep(every_s)
    return (time.process_time() - cpu_s) / (time.monotonic() - wall_s)


def after(seconds: float) -> Callable[[], bool]:
    """Give what becomes true in so many seconds."""
    ends_s = time.monotonic() + seconds
    return lambda: time.monotonic() >= ends_s


async def measure(workers: int, options: argparse.Namespace) -> dict[str, Any]:
    """Measure with so many workers."""
    progress(f"{workers} workers: simulating")
    tasks = max(23, 2 * workers)
    rounds = BEFORE + int((3 * options.seconds + 120) / options.round_seconds)
    laws = scaled(parse_shape("shifted-exp"), [i**0.5 for i in range(1, workers + 1)])
    records = run_on_coordinator("ata-empirical", Setting(laws=laws, tasks=tasks), rounds).rounds
    books = Books(RunSettings(job="simulated", tasks=tasks, price={"*": 1.0}), records)
    for _ in range(BEFORE):
        books.round(told=True)
    progress(f"{workers} workers: {options.seconds:g} s without a page")
    alone = await tell_rounds(books, options.round_seconds, after(options.seconds), told=False)
    page = WebPage(lambda address, token: (grpc.StatusCode.OK, ""), books.document)
    url = page.start("127.0.0.1", 0, None)
    progress(f"{workers} workers: {options.seconds:g} s with one")
    looker = await asyncio.create_subprocess_exec(*looking(url, workers, options), stdout=asyncio.subprocess.PIPE)
    told = asyncio.create_task(looker.communicate())
    with_page = await tell_rounds(books, options.round_seconds, told.done, told=True)
    page.close()
    (answer, _) = await told
    if looker.returncode:
        raise SystemExit(f"the browser's process ended with {looker.returncode}")
    return {
        "workers": workers,
        **json.loads(answer),
        "share_of_a_core": round(with_page - alone, 4),
        "share_without_page": round(alone, 4),
        "limits": {"data_bytes_per_minute": MOST_BYTES_PER_MINUTE, "share_of_a_core": MOST_SHARE},
    }


def looking(url: str, workers: int, options: argparse.Namespace) -> list[str]:
    """Give the command that looks at a page: in a process of its own, whose processor seconds do not count."""
    command = [sys.executable, "-m", "benchmarks.page", "--look", url, "--seconds", str(options.seconds)]
    if options.screenshots is not None:
        command += ["--picture", str(options.screenshots / f"page-{workers}.png")]
    return command


def look(options: argparse.Namespace) -> None:
    """Look at a page, and print the bytes of its data a minute, those of its first answer and of its files."""
    sizes: dict[str, list[float]] = {"data": [], "files": []}
    kinds: dict[str, str] = {}
    with browsing(width=1280, height=1000) as watched:
        network = watched.page.context.new_cdp_session(watched.page)
        network.send("Network.enable")

        def answered(event: dict[str, Any]) -> None:
            kinds[event["requestId"]] = "data" if "/data" in event["response"]["url"] else "files"

        def finished(event: dict[str, Any]) -> None:
            if event["requestId"] in kinds:
                sizes[kinds[event["requestId"]]].append(event["encodedDataLength"])

        network.on("Network.responseReceived", answered)
        network.on("Network.loadingFinished", finished)
        watched.page.goto(options.look)
        began = time.monotonic()
        watched.page.wait_for_timeout(1000 * options.seconds)
        minutes = (time.monotonic() - began) / 60
        if options.picture is not None:
            watched.page.screenshot(path=str(options.picture), full_page=True)
    told = {
        "data_bytes_per_minute": round(sum(sizes["data"]) / minutes),
        "first_data_bytes": round(sizes["data"][0]),
        "requests_per_minute": round(len(sizes["data"]) / minutes, 1),
        "file_bytes": round(sum(sizes["files"])),
    }
    print(json.dumps(told))


def main() -> None:
    """Measure and print."""
    options_of = parser(__doc__)
    options_of.add_argument("--workers", default="5,400", metavar="N,...", help="of each simulated run")
    options_of.add_argument("--seconds", type=float, default=60.0, help="with a page, and as many without")
    options_of.add_argument("--round-seconds", type=float, default=1.0, help="between two rounds")
    options_of.add_argument("--screenshots", type=Path, metavar="DIR", help="keep what the browser sees there")
    for own in ("--look", "--picture"):
        options_of.add_argument(own, help=argparse.SUPPRESS)
    options = options_of.parse_args()
    if options.look is not None:
        look(options)
        return
    runs = [asyncio.run(measure(int(workers), options)) for workers in options.workers.split(",")]
    write({"seconds": options.seconds, "round_seconds": options.round_seconds, "runs": runs}, options.json)


if __name__ == "__main__":
    main()
