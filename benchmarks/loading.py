"""Samples per second of one worker whose samples are small PNG files, beside a plain PyTorch loop on the same files.

    python -m benchmarks.loading [--json FILE] [--repetitions N] [--pictures N] [--rounds N] [--job CLASS]

The plain loop is the limit: `DataLoader(num_workers=2)`, the same batches, forward, backward and step in one process.
Both compute with one thread. Beside it the share of the worker's seconds in which it waited for samples, with two
loader processes and with none.
"""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from benchmarks.measuring import parser, progress, rounds_of, train, write
from paceline.coordination.effects import RoundRecord
from paceline.job import Job
from paceline.loading import load_job
from paceline.tasks import task_samples

FILE = "examples/image_folder.py"
CLASSES, MICRO_BATCH, LOADERS = 10, 32, 2
TARGET_RATIO, TARGET_WAIT = 0.95, 0.05
# Of the first rounds, in which processes start and caches fill.
SKIPPED = 0.2


def write_pictures(folder: Path, count: int) -> None:
    """Write noisy pictures of 32 x 32 in ten class folders."""
    rng = np.random.default_rng(0)
    for label in range(CLASSES):
        (folder / str(label)).mkdir(parents=True)
    for number in range(count):
        pixels = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / str(number % CLASSES) / f"{number:05}.png")


def ours(job: str, data: Path, rounds: int, loaders: int) -> tuple[float, float]:
    """Give samples per second and the share of waiting, of the settled rounds."""
    settings = ("--workers", "1", "--tasks", "1", "--micro-batch", str(MICRO_BATCH), "--rounds", str(rounds))
    records: list[RoundRecord]
    _, records = train(job, *settings, "--data", str(data), "--loaders", str(loaders), "--checkpoint-every", "never",
                       read=rounds_of)  # fmt: skip
    settled = records[int(SKIPPED * rounds) :]
    seconds = settled[-1].opened_s + settled[-1].seconds - settled[0].opened_s
    used_s = sum(worker.used_s for record in settled for worker in record.workers)
    data_s = sum(worker.data_s for record in settled for worker in record.workers)
    return len(settled) * MICRO_BATCH / seconds, data_s / used_s


def plain(job: Job, rounds: int) -> float:
    """Give samples per second of the usual loop."""
    dataset = job.dataset()
    assert isinstance(dataset, Dataset)
    batches = [task_samples(0, task, MICRO_BATCH, len(dataset)).tolist() for task in range(rounds)]
    model = job.model()
    optimizer = job.optimizer(model)
    skipped, begun = int(SKIPPED * rounds), 0.0
    for number, batch in enumerate(DataLoader(dataset, batch_sampler=batches, num_workers=LOADERS)):
        if number == skipped:
            begun = time.perf_counter()
        optimizer.zero_grad()
        loss = job.loss(model, batch)
        assert isinstance(loss, torch.Tensor)
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no annotation here
        optimizer.step()
        loss.item()
    return (rounds - skipped) * MICRO_BATCH / (time.perf_counter() - begun)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--repetitions", type=int, default=3)
    arguments.add_argument("--pictures", type=int, default=10_000)
    arguments.add_argument("--rounds", type=int, default=40)
    arguments.add_argument("--job", default="Pictures", help="Pictures: ResNet-18; SmallPictures: 1/64 of it")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    spec = f"{FILE}:{given.job}"
    found: dict[str, list[float]] = {"plain": [], "ours": [], "wait": [], "ours_0": [], "wait_0": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pictures(folder / "train", given.pictures)
        write_pictures(folder / "test", CLASSES)  # it is measured at the end, which is not what is timed
        job = load_job(spec, folder)
        for number in range(given.repetitions):
            found["plain"].append(plain(job, given.rounds))
            for loaders, key in ((LOADERS, ""), (0, "_0")):
                speed, wait = ours(spec, folder, given.rounds, loaders)
                found[f"ours{key}"].append(speed)
                found[f"wait{key}"].append(wait)
            progress(f"{number + 1} of {given.repetitions}: { ({key: round(v[-1], 3) for key, v in found.items()}) }")
    median = {key: statistics.median(values) for key, values in found.items()}
    write(
        {
            "benchmark": "loading",
            "job": spec,
            "pictures": given.pictures,
            "limit": f"plain loop, DataLoader(num_workers={LOADERS}), one process, one thread",
            "limit_samples_per_s": median["plain"],
            "samples_per_s": median["ours"],
            "ratio_to_limit": statistics.median(a / b for a, b in zip(found["ours"], found["plain"], strict=True)),
            "target_ratio": TARGET_RATIO,
            "wait_share": median["wait"],
            "target_wait_share": TARGET_WAIT,
            "without_loaders": {"samples_per_s": median["ours_0"], "wait_share": median["wait_0"]},
        },
        given.json,
    )


if __name__ == "__main__":
    main()
