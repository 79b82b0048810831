"""What does saving a checkpoint cost: megabytes per second, and how long other threads of the server stand still.

    python -m benchmarks.checkpoints [--json FILE] [--mb 256] [--tensors 200] [--repetitions 5] [--folder DIR]

A model under Adam: a third of the bytes are weights, the rest is state. The limit stated beside it is the same bytes
written into one file and synced in the same run, in turn with the saves. Meanwhile a thread of Python notes the time
once per millisecond: its longest gap is how long an event loop would not have answered, beside its longest gap in as
many seconds without a save. Figures depend on the disk: name one with --folder.
"""

import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.measuring import parser, progress, write
from paceline.server.checkpoints import CheckpointStore
from paceline.server.durable import checksum, write_synced
from paceline.statefile import pack

TICK_S = 0.001


class Ticker:
    """A thread that notes the time once per millisecond while it is entered.

    Attributes:
        longest_s: between two notes.
    """

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._tick)

    def __enter__(self) -> "Ticker":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _tick(self) -> None:
        last = time.perf_counter()
        while not self._stop.wait(TICK_S):
            now = time.perf_counter()
            self.longest_s, last = max(self.longest_s, now - last), now


def state(nbytes: int, tensors: int) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    """Make weights and Adam's state of the given length together."""
    numel = nbytes // 12 // tensors
    weights = {f"layers.{number}.weight": torch.randn(numel) for number in range(tensors)}
    parameters = [torch.nn.Parameter(tensor) for tensor in weights.values()]
    optimizer = torch.optim.Adam(parameters)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return weights, {"optimizer": optimizer.state_dict()}


def measured(work: Callable[[], Any]) -> tuple[float, float]:
    """Give the seconds that work takes, and the longest gap of a ticking thread meanwhile."""
    with Ticker() as ticker:
        start = time.perf_counter()
        work()
        seconds = time.perf_counter() - start
    return seconds, ticker.longest_s


def summary(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--mb", type=int, default=256)
    arguments.add_argument("--tensors", type=int, default=200)
    arguments.add_argument("--repetitions", type=int, default=5)
    arguments.add_argument("--folder", type=Path, help="on the disk that is measured; default: the temporary folder")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    weights, rest = state(given.mb * 1_000_000, given.tensors)
    plain = torch.randint(0, 256, (given.mb * 1_000_000,), dtype=torch.uint8).numpy().data
    found: dict[str, list[float]] = {name: [] for name in ("save", "plain", "sums", "load", "pack")}
    gaps: dict[str, list[float]] = {"save": [], "idle": []}
    nbytes = 0
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        store = CheckpointStore(Path(folder) / "checkpoints", keep=1)
        for number in range(1, given.repetitions + 1):
            file = Path(folder) / f"plain-{number}"
            plain_s, _ = measured(partial(write_synced, file, plain))
            found["plain"].append(given.mb / plain_s)
            sums_s, _ = measured(partial(checksum, file))
            found["sums"].append(given.mb / sums_s)
            file.unlink()
            save_s, gap_s = measured(partial(store.save, number, weights, rest, None))
            nbytes = store.list()[0].nbytes
            found["save"].append(nbytes / save_s / 1e6)
            gaps["save"].append(gap_s * 1e3)
            gaps["idle"].append(measured(partial(time.sleep, save_s))[1] * 1e3)
            found["load"].append(nbytes / measured(partial(store.load, number))[0] / 1e6)
            found["pack"].append(measured(partial(pack, rest, "state"))[0] * 1e3)
            progress(f"{number} of {given.repetitions}: {found['save'][-1]:.0f} MB/s, plain {found['plain'][-1]:.0f}")
    median, limit = statistics.median(found["save"]), statistics.median(found["plain"])
    write(
        {
            "benchmark": "checkpoints",
            "bytes": nbytes,
            "tensors": 3 * given.tensors,
            "save_mb_per_s": summary(found["save"]),
            "limit": "the same bytes written into one file and synced, in turn with the saves",
            "limit_mb_per_s": summary(found["plain"]),
            "ratio_to_limit": median / limit,
            "load_mb_per_s": summary(found["load"]),
            "checksums_alone_mb_per_s": summary(found["sums"]),
            "pack_ms": summary(found["pack"]),
            "longest_gap_ms": summary(gaps["save"]),
            "longest_gap_without_saving_ms": summary(gaps["idle"]),
        },
        given.json,
    )


if __name__ == "__main__":
    main()
