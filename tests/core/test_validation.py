"""What a job's validation() and validate() may be, and that its pieces add up to the whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import TensorDataset

from paceline.errors import JobImportError, RunFailedError, TaskError, UsageError
from paceline.evaluation import evaluate, validate
from paceline.fingerprint import JobFingerprint, differences, fingerprint
from paceline.flat import FlatModel, build_model
from paceline.gradients import ComputeSettings, TaskRunner
from paceline.job import Job
from paceline.loading import build_dataset, build_validation
from paceline.task_loading import TaskLoader
from paceline.tasks import VALIDATION, task_name, validation_samples, validation_tasks
from tests.jobs import DigitsLike, Plateau, Validated, digits_like


def runner_of(job: Job, micro_batch: int = 16, **settings: Any) -> tuple[FlatModel, TaskRunner]:
    chosen = ComputeSettings(seed=3, micro_batch=micro_batch, **settings)
    flat = build_model(job, 3)
    return flat, TaskRunner(job, flat, build_dataset(job, 3, micro_batch), chosen, build_validation(job, 3))


def measured(job: Job, micro_batch: int = 16) -> dict[str, float]:
    validation = build_validation(job, 3)
    assert validation is not None
    loader = TaskLoader(job, build_dataset(job, 3, micro_batch), 3, micro_batch, validation=validation)
    return validate(job, build_model(job, 3).module, loader, validation_tasks(micro_batch, len(validation)), 3)


def test_pieces_hold_every_sample_once_in_order_and_only_the_last_is_short() -> None:
    tasks = validation_tasks(16, 200)
    pieces = [validation_samples(VALIDATION + n, 16, 200).tolist() for n in range(tasks)]
    assert [len(piece) for piece in pieces] == [16] * 12 + [8]
    assert [index for piece in pieces for index in piece] == list(range(200))
    assert task_name(VALIDATION + 12) == "validation task 12"
    for none in (VALIDATION + 13, VALIDATION - 1):
        with pytest.raises(ValueError, match="no such task"):
            validation_samples(none, 16, 200)


def test_metrics_are_those_of_all_the_data_at_once_whatever_the_pieces() -> None:
    class Whole(DigitsLike):
        def evaluate(self, model: torch.nn.Module) -> dict[str, float]:
            images, labels = digits_like(200, noise_seed=8).tensors
            outputs = model(images)
            return {
                "accuracy": (outputs.argmax(1) == labels).double().mean().item(),
                "loss": torch.nn.functional.cross_entropy(outputs, labels).item(),
            }

    whole = evaluate(Whole(), build_model(Whole(), 3).module)
    for micro_batch in (1, 16, 200):
        found = measured(Validated(), micro_batch)
        assert found["accuracy"] == whole["accuracy"]
        assert found["error"] == 1.0 - whole["accuracy"]
        assert found["loss"] == pytest.approx(whole["loss"], rel=1e-6)


def test_a_worker_measures_the_version_whatever_its_training_tasks_did_to_the_buffers() -> None:
    _, fresh = runner_of(Validated())
    expected = fresh.validate(fresh.load(VALIDATION + 2))
    flat, runner = runner_of(Validated())
    runner.compute(runner.load(0))
    assert runner.validate(runner.load(VALIDATION + 2)) == expected
    assert expected.samples == 16
    assert flat.module.training


def test_slices_of_a_piece_add_up_to_it() -> None:
    _, runner = runner_of(Validated())
    whole, sliced = (runner.validate(runner.load(VALIDATION + 12, steps)) for steps in (1, 3))
    assert (whole.samples, whole.sums["accuracy_sum"]) == (sliced.samples, sliced.sums["accuracy_sum"])
    assert whole.sums["loss_sum"] == pytest.approx(sliced.sums["loss_sum"])


class Counted(Validated):
    """Counts something else than samples."""

    def validate(self, model: torch.nn.Module, batch: Any) -> Any:
        images, labels = batch
        known = labels != 9
        return {"right": (model(images).argmax(1) == labels)[known].sum()}, known.sum()

    def metrics(self, means: dict[str, float]) -> dict[str, float]:
        return means


def test_sums_may_count_something_else_than_samples() -> None:
    labels = digits_like(200, noise_seed=8).tensors[1]
    found = measured(Counted())["right"]
    assert found * int((labels != 9).sum()) == pytest.approx(round(found * int((labels != 9).sum())))


def gives(value: Any) -> type[Validated]:
    class Gives(Validated):
        def validate(self, model: torch.nn.Module, batch: Any) -> Any:
            return value() if callable(value) else value

    return Gives


def boom() -> None:
    raise ZeroDivisionError("boom")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (3.0, "validate() gave a float: expected a dict of sums by name, or (sums, n)"),
        (({"a": 1.0}, -1), "validate() gave (sums, n) with n = -1: expected a count"),
        ({"a": float("nan")}, "validate() gave a = nan: expected a finite number"),
        ({"a b": 1.0}, "validate() gave a sum called 'a b': expected letters, digits, - and _"),
        ({f"s{n}": 1.0 for n in range(17)}, "validate() gave 17 sums: expected at most 16"),
        (boom, "validation task 0: validating it raised ZeroDivisionError: boom"),
    ],
)
def test_what_is_no_sum_fails_the_task_by_name(value: Any, words: str) -> None:
    _, runner = runner_of(gives(value)())
    with pytest.raises(TaskError) as caught:
        runner.validate(runner.load(VALIDATION))
    assert words in str(caught.value)
    with pytest.raises(RunFailedError) as failed:
        measured(gives(value)())
    assert words in str(failed.value)


def test_metrics_that_are_none_fail_the_run() -> None:
    class Wrong(Validated):
        def metrics(self, means: dict[str, float]) -> Any:
            return means["loss"]

    with pytest.raises(RunFailedError, match=r"metrics\(\) gave a float: expected a dict like"):
        measured(Wrong())


class OnlyData(DigitsLike):
    evaluate = Job.evaluate

    def validation(self) -> TensorDataset:
        return digits_like(4)


class OnlySums(DigitsLike):
    evaluate = Job.evaluate

    def validate(self, model: torch.nn.Module, batch: Any) -> Any:
        return {}


class Both(Validated):
    def evaluate(self, model: torch.nn.Module) -> dict[str, float]:
        return {}


class Empty(Validated):
    def validation(self) -> Any:
        return []


class Endless(Validated):
    def validation(self) -> Any:
        return iter([1])


@pytest.mark.parametrize(
    ("job", "words"),
    [
        (OnlyData, "job OnlyData has validation() without validate(): expected both"),
        (OnlySums, "job OnlySums has validate() without validation(): expected both"),
        (Both, "job Both has evaluate() and validation(): expected one: workers run validate(), the server evaluate()"),
        (Empty, "validation() is empty: expected at least one sample"),
        (Endless, "validation() gave a list_iterator without len() or indexing"),
    ],
)
def test_a_job_that_is_measured_by_halves_is_refused(job: type[Job], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        build_validation(job(), 1)
    assert words in str(caught.value)


def test_what_validation_raises_is_said_with_its_traceback() -> None:
    class Raises(Validated):
        def validation(self) -> Any:
            raise OSError("no disk")

    with pytest.raises(JobImportError, match=r"validation\(\) of the job raised OSError: no disk"):
        build_validation(Raises(), 1)
    assert build_validation(DigitsLike(), 1) is None


def print_of(job: Job) -> JobFingerprint:
    layout = build_model(job, 1).layout
    return fingerprint(job, layout, build_dataset(job, 1, 4), 1, build_validation(job, 1))


def test_other_validation_data_are_another_job() -> None:
    class Fewer(Validated):
        def validation(self) -> TensorDataset:
            return digits_like(100, noise_seed=8)

    class Others(Validated):
        def validation(self) -> TensorDataset:
            return digits_like(200, noise_seed=9)

    Fewer.__name__ = Others.__name__ = "Validated"
    here = print_of(Validated())
    assert differences(here, JobFingerprint.from_json(here.to_json())) == []
    assert differences(here, print_of(Fewer())) == ["the validation set has 200 samples on the server, 100 here"]
    (found,) = differences(here, print_of(Others()))
    assert found.startswith("the samples differ in order or content: 16 of the 16 compared, first at position 0 of the")


def test_a_learning_rate_follows_the_metric_that_the_job_names_and_nothing_else() -> None:
    from paceline.update import Updater

    job = Plateau()
    flat = build_model(job, 1)
    updater = Updater(job, flat, 1)
    assert updater.follows_metric
    rates = []
    for loss in (1.0, 1.0, 0.5, 0.5):
        updater.measured({"loss": loss, "accuracy": 0.0})
        rates.append(updater.optimizer.param_groups[0]["lr"])
    assert rates == [0.05, 0.025, 0.025, 0.0125]
    with pytest.raises(RunFailedError, match="plateau_metric names metric 'loss', but the evaluation gave accuracy"):
        updater.measured({"accuracy": 0.0})
