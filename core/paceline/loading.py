"""Finds a user's Job, builds what it makes under the run's seed, and checks it early and in words.

Everything wrong with a job is a UsageError of one line; what the job's own code raised is a JobImportError that carries
the user's part of the traceback.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import torch
from torch.utils.data import IterableDataset

from paceline.errors import JobImportError, PacelineError, UsageError
from paceline.job import Job, SampleSource, overrides
from paceline.seeding import seed_everything
from paceline.streams import Shards
from paceline.tracebacks import describe, users_traceback

_imports: list[str] = []


def being_imported() -> str:
    """Name the job's file or module whose import is under way; empty: none is."""
    return _imports[-1] if _imports else ""


@contextlib.contextmanager
def _at(what: str) -> Iterator[None]:
    _imports.append(what)
    try:
        yield
    finally:
        _imports.pop()


def load_job(spec: str, data: Path | str | None = None) -> Job:
    """Import a Job class and make the job.

    The file's folder (for a module: the working directory) is put on the import path, as ``python file.py`` does.

    Args:
        spec: ``path/file.py:Class`` or ``pkg.mod:Class``; or, for a job that is made there, the name of the object.
        data: this machine's data folder, for ``job.data``.

    Raises:
        UsageError: no such file, module or class, not a Job, or methods missing.
        JobImportError: the file itself, or the class's constructor, raised.
    """
    source, _, class_name = spec.rpartition(":")
    if not source or not class_name.isidentifier():
        raise UsageError(f"job {spec!r} does not name a class: expected path/file.py:Class or package.module:Class")
    # What a file makes when it is imported (a model that it hands to an adapter) is the same in every process.
    seed_everything(0)
    module = _import_file(Path(source), spec) if _is_path(source) else _import_module(source, spec)
    found = _find(module, class_name, source)
    if isinstance(found, Job):
        job = found
    else:
        with users_code(f"{class_name}()"):
            job = found()
    if data is not None:
        job.data = Path(data)
        if not job.data.exists():
            raise UsageError(f"data is {str(data)!r}: expected a folder (or file) of this machine")
    return job


def build_dataset(job: Job, seed: int, micro_batch: int, parts: int = 0) -> SampleSource:
    """Open a job's dataset under the run's seed and check that it holds at least one task.

    Raises:
        UsageError: a stream, no len(), no samples, or fewer than micro_batch (in the smallest of the parts).
        JobImportError: the job's own code raised.
    """
    seed_everything(seed)
    with users_code("dataset()"):
        dataset = _checked(job.dataset(), "dataset()")
    if parts and isinstance(dataset, Shards):
        raise UsageError(f"partition is {parts}, but the data are shards: expected a dataset() that can be cut")
    n_samples = len(dataset)
    if n_samples < micro_batch:
        raise UsageError(f"dataset() has {n_samples} samples, fewer than a task: micro-batch is {micro_batch}")
    if parts and n_samples // parts < micro_batch:
        smallest = f"{n_samples // parts} in the smallest of {parts} parts"
        raise UsageError(
            f"dataset() has {n_samples} samples, {smallest}, fewer than a task: micro-batch is {micro_batch}"
        )
    return dataset


def build_validation(job: Job, seed: int) -> SampleSource | None:
    """Open a job's validation data under the run's seed; None where it has none.

    Raises:
        UsageError: no len(), no samples; or the job has only one of validation() and validate(), or evaluate() besides.
        JobImportError: the job's own code raised.
    """
    has = [method for method in ("validation", "validate") if overrides(job, method)]
    if not has:
        return None
    if len(has) == 1:
        missing = "validate" if has == ["validation"] else "validation"
        raise UsageError(f"job {type(job).__name__} has {has[0]}() without {missing}(): expected both")
    if overrides(job, "evaluate"):
        expected = "expected one: workers run validate(), the server evaluate()"
        raise UsageError(f"job {type(job).__name__} has evaluate() and validation(): {expected}")
    seed_everything(seed)
    with users_code("validation()"):
        validation = job.validation()
    return None if validation is None else _checked(validation, "validation()")


def _checked(dataset: SampleSource, what: str) -> SampleSource:
    if isinstance(dataset, IterableDataset):
        kind = f"{type(dataset).__name__}, which is an IterableDataset"
        expected = "expected one with len() and indexing, since a task names its samples, or shards() (docs/streams.md)"
        raise UsageError(f"{what} gave a {kind}: {expected}")
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        kind = type(dataset).__name__
        raise UsageError(f"{what} gave a {kind} without len() or indexing: expected a map-style dataset with a length")
    with users_code(f"len({what})"):
        n_samples = len(dataset)
    if n_samples == 0:
        raise UsageError(f"{what} is empty: expected at least one sample")
    return dataset


def build_module(job: Job, seed: int) -> torch.nn.Module:
    """Build a job's model under the run's seed, so that every process starts from the same weights, and check it.

    Raises:
        UsageError: not a module, nothing to train, or parameters that cannot live in a flat buffer.
        JobImportError: the job's own code raised.
    """
    seed_everything(seed)
    with users_code("model()"):
        module = job.model()
    if not isinstance(module, torch.nn.Module):
        raise UsageError(f"model() gave a {type(module).__name__}: expected a torch.nn.Module")
    check_module(module)
    return module


def check_module(module: torch.nn.Module) -> None:
    """Refuse, by name, what a flat buffer of parameters and summed gradients cannot hold.

    Raises:
        UsageError: no trainable parameters; lazy, sparse or complex ones; embeddings with sparse gradients; parameters
            that share memory without being one Parameter.
    """
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise UsageError(f"model() gave a {type(module).__name__} without trainable parameters")
    owners: dict[int, str] = {}
    for name, parameter in module.named_parameters():
        if isinstance(parameter, torch.nn.parameter.UninitializedParameter):
            raise UsageError(
                f"parameter {name} is lazy: run one batch through the model in model() to give it its shape"
            )
        if parameter.layout is not torch.strided or parameter.is_complex():
            raise UsageError(f"parameter {name} is sparse or complex: expected a dense real tensor")
        if parameter.requires_grad and not parameter.is_floating_point():
            raise UsageError(f"parameter {name} is {parameter.dtype}: expected a floating-point one")
        other = owners.setdefault(parameter.data_ptr(), name) if parameter.numel() else name
        if other != name:
            raise UsageError(f"parameters {other} and {name} share memory: tie them by using one Parameter for both")
    for name, child in module.named_modules():
        if getattr(child, "sparse", False) and isinstance(child, torch.nn.Embedding | torch.nn.EmbeddingBag):
            raise UsageError(
                f"{name or 'the model'} is an embedding with sparse gradients: expected sparse=False, since gradients"
                " are summed densely, and an optimizer such as Adam"
            )


def build_optimizer(job: Job, module: torch.nn.Module) -> torch.optim.Optimizer:
    """Make a job's optimizer and refuse what a round cannot drive.

    Raises:
        UsageError: not an optimizer, needs a closure or sparse gradients, or holds parameters that are not the model's.
        JobImportError: the job's own code raised.
    """
    with users_code("optimizer()"):
        optimizer = job.optimizer(module)
    kind = type(optimizer).__name__
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise UsageError(f"optimizer() gave a {kind}: expected a torch.optim.Optimizer")
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise UsageError(f"optimizer {kind} needs a closure: a round has one gradient, expected e.g. SGD or Adam")
    if isinstance(optimizer, torch.optim.SparseAdam):
        raise UsageError(f"optimizer {kind} needs sparse gradients: gradients are summed densely, expected e.g. Adam")
    own = {id(parameter) for parameter in module.parameters()}
    for number, group in enumerate(optimizer.param_groups):
        if any(id(parameter) not in own for parameter in group["params"]):
            raise UsageError(f"optimizer {kind} holds parameters in group {number} that are not the model's")
    return optimizer


@contextlib.contextmanager
def users_code(what: str) -> Iterator[None]:
    """Turn whatever the job's own code raises into a JobImportError with the user's part of the traceback.

    SystemExit too: a script without a ``__main__`` guard must not end a server silently.
    """
    try:
        yield
    except (PacelineError, KeyboardInterrupt):
        raise
    except (Exception, SystemExit) as error:
        raise JobImportError(f"{what} of the job raised {describe(error)}", users_traceback(error)) from error


def _is_path(source: str) -> bool:
    return source.endswith(".py") or "/" in source or "\\" in source


def _import_file(path: Path, spec: str) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"job file {str(path)!r} does not exist (from {spec!r})")
    _put_on_path(path.resolve().parent)
    # A name of its own: a file called random.py or torch.py must not take the place of the real one.
    name = f"paceline_job_{path.stem}"
    plan = importlib.util.spec_from_file_location(name, path.resolve())
    if plan is None or plan.loader is None:
        raise UsageError(f"job file {str(path)!r} is not a Python file: expected path/file.py:Class")
    module = importlib.util.module_from_spec(plan)
    # Registered first, since dataclasses and worker processes of a data loader look the module up by name.
    sys.modules[name] = module
    with _at(str(path)), users_code(f"importing {path.name}"):
        plan.loader.exec_module(module)
    return module


def _import_module(name: str, spec: str) -> ModuleType:
    _put_on_path(Path.cwd())
    try:
        with _at(name), users_code(f"importing {name}"):
            return importlib.import_module(name)
    except JobImportError as error:
        cause = error.__cause__
        if isinstance(cause, ModuleNotFoundError) and cause.name and f"{name}.".startswith(f"{cause.name}."):
            expected = "expected path/file.py:Class or package.module:Class"
            raise UsageError(f"module {name!r} does not exist (from {spec!r}): {expected}") from None
        raise


def _put_on_path(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _find(module: ModuleType, name: str, source: str) -> type[Job] | Job:
    jobs = [
        key
        for key, value in vars(module).items()
        if (isinstance(value, type) and issubclass(value, Job) and value.__module__ == module.__name__)
        or isinstance(value, Job)
    ]
    if not hasattr(module, name):
        near = difflib.get_close_matches(name, jobs, n=1)
        hint = f"did you mean {near[0]}?" if near else f"its jobs are: {', '.join(jobs) or 'none'}"
        raise UsageError(f"{source} has no class {name!r}: {hint}")
    found = getattr(module, name)
    if isinstance(found, Job):
        return found
    if not isinstance(found, type) or not issubclass(found, Job):
        raise UsageError(f"{name} in {source} is not a job: expected a subclass of paceline.job.Job")
    missing = [f"{method}()" for method in getattr(found, "__abstractmethods__", ())]
    if not any(getattr(found, method) is not getattr(Job, method) for method in ("dataset", "shards")):
        missing.append("dataset() (or shards())")
    if missing:
        raise UsageError(f"job {name} in {source} lacks {', '.join(sorted(missing))}")
    return found
