"""TrainerJob trains as Hugging Face's own Trainer does, and says what it cannot."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

import transformers
from torch.utils.data import SequentialSampler, Subset

from paceline.adapters.transformers import TrainerJob
from paceline.errors import UsageError
from paceline.evaluation import validate
from paceline.flat import build_model
from paceline.loading import build_dataset, build_validation, load_job
from paceline.task_loading import TaskLoader
from paceline.tasks import validation_tasks
from tests.adapters import transformers_jobs as jobs
from tests.curves import MICRO_BATCH, SEED, curve_of, largest_difference, order_of

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
JOB = "tests/adapters/transformers_jobs.py"


class InOrder(transformers.Trainer):
    """Trains on the samples as they come."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)


def trained_by_transformers(model: Any, args: Any, dataset: Any, tasks: int, folder: Path) -> list[float]:
    """Give the loss of each update of Trainer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        args.gradient_accumulation_steps, args.per_device_train_batch_size = tasks, MICRO_BATCH
        args.logging_steps, args.output_dir, args.save_strategy = 1, str(folder), "no"
        args.disable_tqdm, args.report_to = True, []
        trainer = InOrder(model=model, args=args, train_dataset=dataset)
        trainer.train()
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


# A model that gives its batch's mean whatever the number of items it is told: Trainer sums such means over the batches
# that it accumulates, TrainerJob gives their mean; with one batch they are the same.
@pytest.mark.parametrize(
    ("name", "tasks"), [("language", 1), ("language", 3), ("smoothed", 1), ("smoothed", 3), ("sentences", 1)]
)
def test_the_loss_curve_is_that_of_trainer(name: str, tasks: int, tmp_path: Path) -> None:
    job = load_job(f"{JOB}:{name}")
    rounds = 24
    losses, state = curve_of(job, rounds, tasks)
    fresh: Any = load_job(f"{JOB}:{name}").model()
    fresh.load_state_dict(build_model(job, SEED).module.state_dict())
    dataset = job.dataset()
    order = order_of(len(dataset), rounds, tasks)
    args = jobs.arguments(
        lr_scheduler_type="linear" if name == "sentences" else "cosine",
        label_smoothing_factor=0.1 if name == "smoothed" else 0.0,
    )
    theirs = trained_by_transformers(fresh, args, Subset(dataset, order), tasks, tmp_path)  # type: ignore[arg-type]
    assert losses[-1] < losses[0]
    assert largest_difference(losses, theirs) < 1e-4  # Trainer rounds what it logs to four digits
    for key, tensor in fresh.state_dict().items():
        assert torch.allclose(tensor, state[key], atol=1e-5), key


def test_workers_measure_the_loss_weighted_by_tokens() -> None:
    job = load_job(f"{JOB}:language")
    flat = build_model(job, SEED)
    validation = build_validation(job, SEED)
    assert validation is not None
    loader = TaskLoader(job, build_dataset(job, SEED, 8), SEED, 8, validation=validation)
    found = validate(job, flat.module, loader, validation_tasks(8, len(validation)), SEED)
    total, items = 0.0, 0
    for start in (0, 8, 16):
        rows = [validation[index] for index in range(start, min(start + 8, 20))]
        batch = {key: torch.stack([torch.as_tensor(row[key]) for row in rows]) for key in ("input_ids", "labels")}
        count = int((batch["labels"] != -100).sum())
        with torch.no_grad():
            total += float(flat.module(**batch).loss) * count
        items += count
    assert found["loss"] == pytest.approx(total / items, rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"gradient_accumulation_steps": 4}, "args have gradient_accumulation_steps = 4: expected 1; with paceline it"),
        ({"bf16": True}, "args have bf16 = True: expected False; with paceline it is --precision"),
        ({"max_steps": -1}, "max_steps is -1: expected the number of rounds, which schedule cosine needs"),
    ],
)
def test_arguments_that_contradict_paceline_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        TrainerJob(jobs.gpt2, jobs.arguments(**changes), jobs.Lines(10))
    assert words in str(caught.value)


def test_what_are_no_arguments_are_refused() -> None:
    with pytest.raises(UsageError, match=r"args is a dict: expected transformers.TrainingArguments"):
        TrainerJob(jobs.gpt2, {}, jobs.Lines(10))
