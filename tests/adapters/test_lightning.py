"""LightningJob trains as Lightning's own Trainer does, and says what it cannot."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

pytest.importorskip("lightning")

import lightning.pytorch as pl
from torch.utils.data import DataLoader, Subset

from paceline.adapters.lightning import LightningJob
from paceline.errors import UsageError
from paceline.evaluation import validate
from paceline.flat import build_model
from paceline.loading import build_dataset, build_validation, load_job
from paceline.task_loading import TaskLoader
from paceline.tasks import validation_tasks
from paceline.update import Updater
from tests.adapters import lightning_jobs as jobs
from tests.curves import MICRO_BATCH, SEED, curve_of, largest_difference, order_of

pytestmark = pytest.mark.slow
JOB = "tests/adapters/lightning_jobs.py"


class Kept(pl.Callback):
    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.losses.append(float(outputs["loss"]))


def trained_by_lightning(module: Any, order: list[int], accumulate: int) -> list[float]:
    """Give the mean loss of each update of Lightning's Trainer."""
    data = jobs.Data()
    data.setup("fit")
    loader = DataLoader(Subset(data.train, order), batch_size=MICRO_BATCH)
    kept = Kept()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = pl.Trainer(
            max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, callbacks=[kept],
            gradient_clip_val=0.5, accumulate_grad_batches=accumulate, enable_progress_bar=False,
            enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, loader)
    # Lightning has divided each by the number of batches that it accumulates.
    losses = kept.losses
    return [sum(losses[n : n + accumulate]) for n in range(0, len(losses), accumulate)]


@pytest.mark.parametrize("tasks", [1, 3])
def test_the_loss_curve_is_that_of_lightnings_trainer(tasks: int) -> None:
    rounds = 30
    job = load_job(f"{JOB}:job")
    losses, state = curve_of(job, rounds, tasks)
    module = build_model(load_job(f"{JOB}:job"), SEED).module
    fresh = jobs.Digits()
    fresh.load_state_dict(module.state_dict())
    theirs = trained_by_lightning(fresh, order_of(160, rounds, tasks), tasks)
    assert losses[-1] < losses[0] / 2
    assert largest_difference(losses, theirs) < 1e-5
    for name, tensor in fresh.state_dict().items():
        assert torch.allclose(tensor, state[name], atol=1e-5), name


def test_what_is_logged_becomes_means_of_rounds_and_metrics() -> None:
    job = load_job(f"{JOB}:job")
    flat = build_model(job, SEED)
    dataset, validation = build_dataset(job, SEED, MICRO_BATCH), build_validation(job, SEED)
    assert validation is not None
    loader = TaskLoader(job, dataset, SEED, MICRO_BATCH, validation=validation)
    metrics = validate(job, flat.module, loader, validation_tasks(MICRO_BATCH, len(validation)), SEED)
    data = jobs.Data()
    data.setup("fit")
    images, labels = data.val.tensors
    with torch.no_grad():
        outputs = flat.module.net(images)  # type: ignore[operator]
    assert metrics["val_accuracy"] == pytest.approx((outputs.argmax(1) == labels).double().mean().item())
    assert metrics["val_loss"] == pytest.approx(torch.nn.functional.cross_entropy(outputs, labels).item(), rel=1e-6)
    batch = loader.load(0).parts[0]
    loss = job.loss(flat.module, batch)
    assert isinstance(loss, tuple)
    assert len(loss) == 3
    assert (loss[1], list(loss[2])) == (MICRO_BATCH, ["train_accuracy_sum"])
    # The module's own log is back.
    assert "log" not in vars(flat.module)


def test_weights_are_the_seeds_where_the_job_has_the_class_and_else_those_handed_over() -> None:
    job, handed = load_job(f"{JOB}:job"), load_job(f"{JOB}:handed_over")
    states = [build_model(job, seed).fingerprint() for seed in (1, 1, 2)]
    assert states[0] == states[1] != states[2]
    assert build_model(handed, 1).fingerprint() == build_model(handed, 2).fingerprint()
    # Each process that imports the file hands over the same.
    again = load_job(f"{JOB}:handed_over")
    assert build_model(again, 1).fingerprint() == build_model(handed, 1).fingerprint()


def test_a_scheduler_of_epochs_is_stepped_once_in_so_many_rounds_and_saved_with_its_count() -> None:
    job = LightningJob(jobs.ByEpoch, jobs.Data, rounds_per_epoch=4)
    flat = build_model(job, SEED)
    updater = Updater(job, flat, SEED)
    scheduler: Any = updater.scheduler
    rates = []
    for _ in range(9):
        updater.optimizer.step()
        scheduler.step()
        rates.append(updater.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.1] * 3 + [0.05] * 4 + [0.025] * 2)
    state = scheduler.state_dict()
    other: Any = Updater(job, build_model(job, SEED), SEED).scheduler
    other.load_state_dict(state)
    assert other.state_dict() == state


def test_a_plateau_follows_what_it_monitors() -> None:
    job = LightningJob(jobs.OnPlateau, jobs.Data)
    updater = Updater(job, build_model(job, SEED), SEED)
    assert (updater.follows_metric, job.plateau_metric) == (True, "val_loss")


@pytest.mark.parametrize(
    ("module", "datamodule", "words"),
    [
        (jobs.ByHand, jobs.Data, "module ByHand optimizes by hand (automatic_optimization = False)"),
        (jobs.TwoOptimizers, jobs.Data, "configure_optimizers() gave 2 optimizers and 0 schedulers: expected one"),
        (jobs.ByEpoch, jobs.Data, "scheduler StepLR is stepped once per epoch, and paceline counts rounds"),
        (jobs.OwnStep, jobs.Data, "module OwnStep has optimizer_step() of its own"),
        (torch.nn.Linear, jobs.Data, "module is a Linear: expected a LightningModule"),
        (jobs.Digits, dict, "datamodule is a dict: expected a LightningDataModule"),
        (jobs.Digits, jobs.Sampled, "train_dataloader() gave a DataLoader with a WeightedRandomSampler: expected none"),
        (jobs.Digits, jobs.Streamed, "dataset() gave a Stream, which is an IterableDataset"),
    ],
)
def test_what_cannot_be_taken_is_refused_by_name(module: Any, datamodule: Any, words: str) -> None:
    maker = (lambda: torch.nn.Linear(2, 2)) if module is torch.nn.Linear else module

    def begin() -> None:
        job = LightningJob(maker, datamodule)
        Updater(job, build_model(job, SEED), SEED)
        build_dataset(job, SEED, MICRO_BATCH)

    with pytest.raises(UsageError) as caught:
        begin()
    assert words in str(caught.value)


def test_clipping_by_what_there_is_not_is_refused() -> None:
    with pytest.raises(UsageError, match="gradient_clip_algorithm is 'max': expected norm or value"):
        LightningJob(jobs.Digits, jobs.Data, gradient_clip_algorithm="max")
