"""Samples per second of one worker beside a plain PyTorch loop and accelerate, on the same batches: paceline's price.

    python -m benchmarks.single [--json FILE] [--repetitions N] [--rounds N] [--job CLASS]

No delay, `--tasks 1`: each task is an update, so that each task pulls and pushes the whole model of 5 million
parameters. Server and worker have a core each; the loops have one. All compute with one thread. The plain loop is the
limit. `Pictures` computes long for its size, as most models do; `Dense` is the worst case: hardly anything but
parameters.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from benchmarks.measuring import ROOT, parser, progress, write
from examples.image_folder import resnet18
from paceline.job import Job
from paceline.loading import build_dataset, build_module
from paceline.server.ledger_reader import LedgerReader
from paceline.task_loading import TaskLoader
from tests.system.cluster import free_port

FILE = "benchmarks/single.py"
TARGET = 0.9
SEED = 1
# Of the first rounds, in which caches fill.
SKIPPED = 0.2
SERVER_CORE, WORKER_CORE = 0, 1


class Pictures(Job):
    """A ResNet-18 of 5 million parameters on pictures in memory."""

    micro_batch = 16

    def model(self) -> nn.Module:
        """See Job."""
        *body, last = resnet18(10, width=40)
        assert isinstance(last, nn.Linear)
        return nn.Sequential(*body, nn.Linear(last.in_features, 2000), nn.ReLU(), nn.Linear(2000, 10))

    def dataset(self) -> TensorDataset:
        """See Job."""
        chance = torch.Generator().manual_seed(0)
        return TensorDataset(torch.randn(512, 3, 32, 32, generator=chance), torch.arange(512) % 10)

    def loss(self, model: nn.Module, batch: Any) -> torch.Tensor:
        """See Job."""
        inputs, labels = batch
        return F.cross_entropy(model(inputs), labels)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """See Job."""
        return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


class Dense(Pictures):
    """Layers that multiply each parameter once for each sample."""

    micro_batch = 256

    def model(self) -> nn.Module:
        """See Job."""
        layers: list[nn.Module] = [nn.Flatten(), nn.Linear(3072, 1024), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 820), nn.Linear(820, 10))


JOBS = {"Pictures": Pictures, "Dense": Dense}


def ours(name: str, rounds: int) -> float:
    """Give the samples per second of a server and one worker, of the settled rounds."""
    with tempfile.TemporaryDirectory() as folder:
        address, run = f"127.0.0.1:{free_port()}", Path(folder) / "run"
        job, size = f"{FILE}:{name}", JOBS[name].micro_batch
        settings = ["--tasks", "1", "--micro-batch", str(size), "--rounds", str(rounds), "--seed", str(SEED)]
        server = _pinned(
            SERVER_CORE,
            "server",
            job,
            *settings,
            "--bind",
            address,
            "--run-dir",
            str(run),
            "--checkpoint-every",
            "never",
        )
        worker = _pinned(WORKER_CORE, "worker", address, job, "--loaders", "0")
        for process in (server, worker):
            _, said = process.communicate()
            if process.returncode != 0:
                raise SystemExit(f"it ended with {process.returncode}:\n{said[-3000:]}")
        with LedgerReader(run / "ledger.sqlite") as ledger:
            settled = ledger.rounds()[int(SKIPPED * rounds) :]
    seconds = settled[-1].opened_s + settled[-1].seconds - settled[0].opened_s
    return len(settled) * size / seconds


def _pinned(core: int, *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "paceline.cli", *args],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )


def loop(name: str, rounds: int, *, accelerate: bool) -> float:
    """Give the samples per second of the usual loop, or of the same with accelerate; in a process of its own."""
    asked = ["--job", name, "--rounds", str(rounds), "--loop", "accelerate" if accelerate else "plain"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.single", *asked], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(done.stderr[-3000:])
    return float(done.stdout)


def run_loop(name: str, rounds: int, accelerate: bool) -> float:
    """Train on one core, one batch a step; only the settled steps count."""
    os.sched_setaffinity(0, {WORKER_CORE})
    torch.set_num_threads(1)
    job = JOBS[name]()
    model: Any = build_module(job, SEED)
    optimizer: Any = job.optimizer(model)
    loader = TaskLoader(job, build_dataset(job, SEED, job.micro_batch), SEED, job.micro_batch)
    accelerator: Any = None
    if accelerate:
        from accelerate import Accelerator

        accelerator = Accelerator(cpu=True)
        model, optimizer = accelerator.prepare(model, optimizer)
    first = int(SKIPPED * rounds)
    for step in range(rounds):
        if step == first:
            begun = time.perf_counter()
        optimizer.zero_grad()
        loss = job.loss(model, loader.load(step).parts[0])
        if accelerator is None:
            torch.autograd.backward(loss)
        else:
            accelerator.backward(loss)
        optimizer.step()
    return (rounds - first) * job.micro_batch / (time.perf_counter() - begun)


def measure(name: str, rounds: int, repetitions: int) -> dict[str, Any]:
    """Take the three in turn, so that a noisy moment hits them alike; ratios are of one turn each."""
    parameters = sum(parameter.numel() for parameter in JOBS[name]().model().parameters())
    turns = []
    for turn in range(1, repetitions + 1):
        progress(f"{name}, turn {turn} of {repetitions}")
        plain = loop(name, rounds, accelerate=False)
        turns.append(
            {"plain": plain, "accelerate": loop(name, rounds, accelerate=True), "paceline": ours(name, rounds)}
        )
    ratios = {other: [turn["paceline"] / turn[other] for turn in turns] for other in ("plain", "accelerate")}
    return {
        "parameters": parameters,
        "micro_batch": JOBS[name].micro_batch,
        "samples_per_s": {kind: statistics.median(turn[kind] for turn in turns) for kind in turns[0]},
        "to_plain": {"median": statistics.median(ratios["plain"]), "all": ratios["plain"], "target": TARGET},
        "to_accelerate": {"median": statistics.median(ratios["accelerate"]), "all": ratios["accelerate"]},
    }


def arguments() -> argparse.Namespace:
    """Read the command line."""
    made = parser(__doc__)
    made.add_argument("--repetitions", type=int, default=3)
    made.add_argument("--rounds", type=int, default=60)
    made.add_argument("--job", choices=JOBS)
    made.add_argument("--loop", choices=("plain", "accelerate"), help=argparse.SUPPRESS)
    return made.parse_args()


def main() -> None:
    """Measure, or be one of the loops."""
    asked = arguments()
    if asked.loop:
        print(run_loop(asked.job, asked.rounds, asked.loop == "accelerate"))
        return
    names = [asked.job] if asked.job else list(JOBS)
    write({name: measure(name, asked.rounds, asked.repetitions) for name in names}, asked.json)


if __name__ == "__main__":
    main()
