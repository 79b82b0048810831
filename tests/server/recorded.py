"""Trains in plain torch by a given plan, stale versions, weights and divisors included, and records it as a run."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from paceline.coordination.effects import Finish, LeaseRecord, LeaseVerdict, Outcome, RoundRecord
from paceline.coordination.events import TaskResult
from paceline.coordination.ids import Incarnation, LeaseId, TaskId, WorkerName
from paceline.flat import FlatModel, build_model
from paceline.job import Job
from paceline.loading import build_dataset, load_job
from paceline.protos.framing import crc32c
from paceline.server.ledger import Ledger
from paceline.server.preparation import build_job
from paceline.server.rundir import RunDir
from paceline.settings import RunSettings
from paceline.tasks import task_samples, task_seed
from paceline.weights import load_init, save_model
from tests.reference import seed_all

State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Share:
    """One lease of a round: who did which tasks at which version, and the weight of its contribution."""

    worker: str
    version: int
    tasks: tuple[int, ...]
    weight: float = 1.0


@dataclass(frozen=True)
class Planned:
    """One round; a divisor of None is the number of samples."""

    shares: tuple[Share, ...]
    divisor: float | None = None


class Recorder:
    """Trains and records.

    Attributes:
        path: the run's directory.
        states: all versions by number, as state dicts.
    """

    def __init__(self, path: Path, job: str = "tests/jobs.py:DigitsLike", **settings: Any) -> None:
        given = {"job": job, "seed": 5, "micro_batch": 4, "sums": "exact", "policy": "uniform", **settings}
        self.settings = RunSettings(**given)
        built = build_job(self.settings)
        run_dir = RunDir.create(path, job)
        asked = self.settings.model_dump(mode="json")
        run_dir.write_settings(asked, json.loads(built.fingerprint.to_json()), built.flat.fingerprint(), 1)
        self.path = path
        self._job: Job = load_job(job)
        self._dataset = build_dataset(self._job, self.settings.seed, self.settings.micro_batch)
        self._flat: FlatModel = build_model(self._job, self.settings.seed)
        if self.settings.init is not None:
            load_init(self._flat, self.settings.init)
        self._scratch = build_model(self._job, self.settings.seed).module
        self._optimizer = self._job.optimizer(self._flat.module)
        self.states: list[State] = [self._state(self._flat.module)]
        self._ledger = Ledger(run_dir.ledger, "{}")
        self._ledger.start()
        self._leases = 0

    def round(self, plan: Planned) -> None:
        """Train and record one round."""
        number = len(self.states)
        done = [self._share(share) for share in plan.shares]
        ends = {task: end for _, of_share in done for task, end in sorted(of_share.items())}
        samples = len(ends) * self.settings.micro_batch
        divisor = samples if plan.divisor is None else plan.divisor
        self._step([(share.weight, sums) for share, (sums, _) in zip(plan.shares, done, strict=True)], divisor)
        self._average_buffers({task: state for task, (_, state) in ends.items()})
        self.states.append(self._state(self._flat.module))
        losses = {task: loss for task, (loss, _) in ends.items()}
        for share in plan.shares:
            self._ledger.observe(self._lease(number, share, losses), float(number))
        self._ledger.observe(
            RoundRecord(
                round=number,
                version=number,
                allocation=tuple((WorkerName(share.worker), len(share.tasks)) for share in plan.shares),
                reason="by hand",
                opened_s=number - 1.0,
                seconds=1.0,
                loss=math.fsum(losses.values()) / samples,
                samples=samples,
                tasks_used=len(ends),
                workers=(),
                next_tasks=(max(ends) + 1,),
                returned=(),
                divisor=plan.divisor,
                state_crc32c=crc32c(bytes(self._flat.version_view)),
            ),
            float(number),
        )

    def _step(self, weighted: list[tuple[float, State]], divisor: float) -> None:
        for name, parameter in self._flat.module.named_parameters():
            total = torch.zeros_like(parameter, dtype=torch.float64)
            for weight, sums in weighted:
                total += weight * sums[name]
            parameter.grad = (total / divisor).to(parameter.dtype)
        self._optimizer.step()

    def _average_buffers(self, states: dict[int, State]) -> None:
        for name, buffer in self._flat.module.named_buffers():
            if buffer.is_floating_point():
                size = self.settings.micro_batch
                total = torch.stack([state[name].double() * size for state in states.values()]).sum(0)
                buffer.copy_(total / (size * len(states)))
            else:
                buffer.copy_(states[min(states)][name])

    def end(self, outcome: Outcome | None = Outcome.DONE) -> Path:
        """Save the weights and close the books; None: as a server that was killed leaves them."""
        if outcome is not None:
            self._ledger.observe(Finish(outcome, "the plan is done"), 99.0)
            save_model(self._flat, self.path / "model.safetensors")
        self._ledger.close()
        return self.path

    def _share(self, share: Share) -> tuple[State, dict[int, tuple[float, State]]]:
        """Compute a share at its version: the gradients' sums, and for each task its loss and the buffers it left."""
        sums = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in self._scratch.named_parameters()}
        ends = {}
        for task in share.tasks:
            self._scratch.load_state_dict(self.states[share.version])
            self._scratch.zero_grad()
            indices = task_samples(self.settings.seed, task, self.settings.micro_batch, len(self._dataset))
            seed_all(task_seed(self.settings.seed, task, "loading"))
            batch = self._job.collate([self._dataset[int(i)] for i in indices])
            seed_all(task_seed(self.settings.seed, task, "computing"))
            mean = self._job.loss(self._scratch, batch)
            assert isinstance(mean, torch.Tensor)
            loss = mean * self.settings.micro_batch
            loss.backward()  # type: ignore[no-untyped-call]
            for name, parameter in self._scratch.named_parameters():
                assert parameter.grad is not None
                sums[name] += parameter.grad
            ends[task] = (loss.item(), self._state(self._scratch))
        return sums, ends

    def _lease(self, number: int, share: Share, losses: dict[int, float]) -> LeaseRecord:
        self._leases += 1
        return LeaseRecord(
            lease=LeaseId((1 << 40) + self._leases),
            worker=WorkerName(share.worker),
            incarnation=Incarnation(share.worker),
            round=number,
            version=share.version,
            granted=tuple(map(TaskId, share.tasks)),
            kept=tuple(map(TaskId, sorted(share.tasks))),
            dropped=(),
            results=tuple(
                TaskResult(task=TaskId(task), seconds=0.1, loss_sum=losses[task], samples=self.settings.micro_batch)
                for task in sorted(share.tasks)
            ),
            seconds=1.0,
            wasted_s=0.0,
            weight=share.weight,
            verdict=LeaseVerdict.APPLIED,
        )

    @staticmethod
    def _state(module: torch.nn.Module) -> State:
        return {name: value.detach().clone() for name, value in module.state_dict().items()}


def record(path: Path, plan: Sequence[Planned], outcome: Outcome | None = Outcome.DONE, **settings: Any) -> Recorder:
    """Train and record a whole run."""
    recorder = Recorder(path, **settings)
    for planned in plan:
        recorder.round(planned)
    recorder.end(outcome)
    return recorder
