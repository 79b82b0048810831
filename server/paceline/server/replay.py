"""Makes the versions of a past run again, in one process and without a network, and compares them with its ledger.

Every task that the ledger says was applied is computed at the version that it was computed at, summed lease by lease in
the order in which the leases were added, and the update is made by the server's own model. So nothing is left to chance
but what other hardware or libraries do.

Memory: two models, a lease's sum, the round's sum, and those old versions that a later lease still needs (known from a
first pass over the ledger): as many as the stalest lease was behind.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from paceline.coordination.effects import ApplyUpdate, LeaseRecord, RoundRecord
from paceline.coordination.events import TaskResult
from paceline.coordination.ids import PushId
from paceline.errors import TaskError, UsageError
from paceline.fingerprint import differences
from paceline.flat import build_model
from paceline.gradients import ComputeSettings, TaskGradient, TaskRunner
from paceline.protos.framing import crc32c
from paceline.server.model import ServerModel, UpdateFault
from paceline.server.past_run import PastRun
from paceline.server.preparation import BuiltJob, build_job, parse_device
from paceline.settings import RunSettings
from paceline.weights import load_init


@dataclass(frozen=True, slots=True)
class OneTask:
    """A task of the run: its id, who did it, and the version that it was done at."""

    task: int
    worker: str
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What came out otherwise.

    Attributes:
        what: in words.
        task: where it is one task's.
        recorded, replayed: the two numbers, where it is one.
        traceback_text: of the job's code, where that raised.
    """

    round: int
    what: str
    task: OneTask | None = None
    recorded: float | None = None
    replayed: float | None = None
    traceback_text: str = ""


class Replay:
    """A past run's job, built again, at its initial parameters.

    Args:
        run: the past run.
        job: spec of the job; None: as the run named it.
        data: folder for the job; None: the run's.
        device: where tasks are computed; None: the run's `device`, where updates are made in any case.

    Attributes:
        version: that has been made again.
        difference: the first, None while there is none.
        device: where tasks are computed.

    Raises:
        UsageError: the job cannot be built, or is not the run's, or begins with other parameters.
        SettingsError: a device is not there.
    """

    def __init__(
        self, run: PastRun, job: str | None = None, data: Path | None = None, device: str | None = None
    ) -> None:
        settings = _settings(run, job, data)
        built = build_job(settings)
        _check_same(run, settings, built)
        self.version = 0
        self.difference: Difference | None = None
        self.device = parse_device(device or settings.device)
        self._run = run
        self._flat = built.flat
        self._model = ServerModel(built.flat, built.updater, built.layout, inline_bytes=0)
        self._model.image()  # brings the version to the host
        self._here = build_model(built.job, settings.seed, self.device)
        if run.model is not None:
            load_init(self._here, run.model)  # what cannot be compared at the end shows now
        self._here.copy_from(built.flat)
        self._runner = TaskRunner(built.job, self._here, built.dataset, ComputeSettings.of(settings))
        self._sum = self._runner.new_sum()
        self._adopted: int | None = None
        self._states: dict[int, bytes] = {}
        self._loss_scales = {0: self._model.loss_scale}
        self._keep_for_later()

    def play(self, record: RoundRecord, leases: Sequence[LeaseRecord]) -> bool:
        """Make one round's update again.

        Args:
            leases: those whose contributions made it, in the order of adding.

        Returns:
            False if that was not possible: the replay ends here.
        """
        number, tasks = self.version + 1, sum(len(lease.kept) for lease in leases)
        if record.round != number:
            return self._stop(f"it is missing in the ledger, which goes on with round {record.round}")
        if tasks != record.tasks_used:
            self._note_numbers("tasks of its leases", record.tasks_used, tasks)
        done: list[TaskGradient] = []
        return all(self._add(lease, done) for lease in leases) and self._update(record, done)

    def fingerprint(self) -> str:
        """Give the fingerprint of the version that has been made again."""
        return self._flat.fingerprint()

    def compare_with(self, weights: Path) -> dict[str, float]:
        """Compare the version with saved weights, tensor by tensor.

        Returns:
            For each tensor that differs in a bit the norm of the difference over the saved one's norm, inf where that
            is no number.
        """
        load_init(self._here, weights)
        self._adopted = None
        saved = self._here.named_views()
        return {
            name: _relative(view, saved[name].to(view.device))
            for name, view in self._flat.named_views().items()
            if not _same_bits(view, saved[name].to(view.device))
        }

    # ---- inside ------------------------------------------------------------------------------------------------------

    def _add(self, lease: LeaseRecord, done: list[TaskGradient]) -> bool:
        """Compute a lease's tasks and add their sum to the round's."""
        if not self._adopt(lease.version):
            return self._stop(f"lease {lease.lease} of {lease.worker} is at version {lease.version}: there is none")
        self._sum.zero_()
        for result in _as_computed(lease):
            gradient = self._compute(lease, result)
            if gradient is None:
                return False
            self._runner.accumulate(self._sum, gradient)
            done.append(gradient)
        self._sum.image.to_host()
        push, data = PushId(lease.lease), self._sum.host_view
        fault = self._model.write_whole(push, min(lease.kept), data, crc32c(data))
        if fault is not None:
            return self._stop(f"the contribution of {lease.worker} was refused: {fault[1]}")
        self._model.add(push, lease.weight)
        return True

    def _adopt(self, version: int) -> bool:
        """Bring the second model to a version; False if it was not kept, since the first pass saw no lease of it."""
        if version != self._adopted:
            state = self._flat.version_view if version == self.version else self._states.get(version)
            if state is None:
                return False
            self._here.version_view[:] = state
            self._here.image.from_host(0, self._here.layout.version_nbytes)
            self._runner.adopt_version(self._loss_scales[version])
            self._adopted = version
        return True

    def _compute(self, lease: LeaseRecord, result: TaskResult) -> TaskGradient | None:
        """Compute a task and compare it with its record; None if that was not possible."""
        try:
            gradient = self._runner.compute(self._runner.load(result.task, result.micro_steps or None))
        except TaskError as error:
            self._stop(f"{error} ({lease.worker} managed it in the run)", error.traceback_text)
            return None
        except SystemExit:
            self._stop(f"task {result.task}: the job's code called exit() ({lease.worker} managed it in the run)")
            return None
        if gradient is not None:
            self._compare(lease, result, gradient)
        return gradient

    def _compare(self, lease: LeaseRecord, result: TaskResult, gradient: TaskGradient) -> None:
        task = OneTask(result.task, lease.worker, lease.version)
        of_task = f"of task {task.task} ({task.worker}, at version {task.version})"
        if gradient.samples != result.samples:
            self._note_numbers(f"samples {of_task}", result.samples, gradient.samples, task)
        if gradient.loss_sum != result.loss_sum:
            self._note_numbers(f"loss sum {of_task}", result.loss_sum, gradient.loss_sum, task)

    def _update(self, record: RoundRecord, done: list[TaskGradient]) -> bool:
        """Step the model by the round's sum, as the server did, and compare the version with its record."""
        samples = sum(gradient.samples for gradient in done)
        # As coordination.planning has it; fsum does not depend on the order.
        loss = math.fsum(gradient.loss_sum for gradient in done) / max(samples, 1)
        image = self._model.apply(
            ApplyUpdate(
                version=record.round,
                samples=samples,
                divisor=max(samples, 1) if record.divisor is None else record.divisor,
                loss=loss,
                tasks=len(done),
                scalars=(),
            )
        )
        if isinstance(image, UpdateFault):
            return self._stop(image.message, image.traceback_text)
        if math.isfinite(record.loss) and loss != record.loss:
            self._note_numbers("mean loss", record.loss, loss)
        if image.skipped != record.skipped:
            self._note_numbers("updates skipped", int(record.skipped), int(image.skipped))
        if image.crc32c != record.state_crc32c:
            what = "checksum of the parameters and buffers (every task's loss is the same)"
            self._note_numbers(what, record.state_crc32c, image.crc32c)
        self.version = record.round
        self._loss_scales[self.version] = image.loss_scale
        self._keep_for_later()
        return self._measured()

    def _measured(self) -> bool:
        """Let a learning rate that follows a metric know it, as the server did before the next round."""
        metrics = self._run.evaluations.get(self.version)
        fault = self._model.measured(metrics) if metrics is not None and self._model.follows_metric else None
        return fault is None or self._stop(fault.message, fault.traceback_text)

    def _keep_for_later(self) -> None:
        """Keep the version if a later lease needs it after the next round; forget those that none needs any more."""
        last_uses = self._run.last_uses
        for version in [version for version in self._states if last_uses[version] <= self.version]:
            del self._states[version]
        if self.version in last_uses:
            self._states[self.version] = bytes(self._flat.version_view)

    def _note(self, difference: Difference) -> None:
        if self.difference is None:
            self.difference = difference

    def _note_numbers(self, name: str, recorded: float | None, replayed: float, task: OneTask | None = None) -> None:
        what = f"{name}: {recorded!r} in the run, {replayed!r} in the replay"
        number = self.version + 1
        self._note(Difference(round=number, what=what, task=task, recorded=recorded, replayed=replayed))

    def _stop(self, what: str, traceback_text: str = "") -> bool:
        self._note(Difference(round=self.version + 1, what=what, traceback_text=traceback_text))
        return False


def _settings(run: PastRun, job: str | None, data: Path | None) -> RunSettings:
    settings = run.beginning.settings
    return settings.model_copy(update={"job": job or settings.job, "data": settings.data if data is None else data})


def _check_same(run: PastRun, settings: RunSettings, built: BuiltJob) -> None:
    """Refuse a job that is not the run's, or that begins with other parameters."""
    found = differences(run.beginning.fingerprint, built.fingerprint)
    if found:
        raise UsageError(f"job {settings.job!r} is not the run's: {'; '.join(found)}")
    here = built.flat.fingerprint()
    if here != run.beginning.initial_model:
        cause = (
            "its model() or the version of torch" if settings.init is None else f"the weights {str(settings.init)!r}"
        )
        raise UsageError(
            f"job {settings.job!r} begins with parameters of fingerprint {here}, the run began with"
            f" {run.beginning.initial_model}: {cause} must have changed since"
        )


def _as_computed(lease: LeaseRecord) -> list[TaskResult]:
    """Put a lease's results in the order in which its worker did them, that of granting: fast sums depend on it."""
    place = {task: number for number, task in enumerate(lease.granted)}
    return sorted(lease.results, key=lambda result: place.get(result.task, len(place)))


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8))


def _relative(one: torch.Tensor, other: torch.Tensor) -> float:
    norm = torch.linalg.vector_norm
    value = (norm(one.double() - other.double()) / norm(other.double())).item()
    return value if math.isfinite(value) else math.inf
