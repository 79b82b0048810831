"""Takes a run's model out of its directory, where nothing is written: as a module, or as a folder for others."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from paceline.errors import UsageError
from paceline.flat import FlatModel, build_model
from paceline.loading import load_job
from paceline.server.checkpoint_export import checkpoints_of, export_best, export_checkpoint
from paceline.server.past_run import read_beginning
from paceline.server.rundir import MODEL, SETTINGS
from paceline.settings import RunSettings
from paceline.version import __version__
from paceline.weights import load_init, save_model

Which = int | Literal["best"] | None
NOTE = "README.md"


@dataclass(frozen=True, slots=True)
class Exported:
    """A model that was written.

    Attributes:
        layout: "huggingface", or "safetensors" with a note beside it.
        files: their names.
    """

    path: Path
    layout: str
    files: tuple[str, ...]
    fingerprint: str


def load(
    run: str | os.PathLike[str],
    which: Which = None,
    *,
    job: str | None = None,
    data: str | os.PathLike[str] | None = None,
    device: str | torch.device = "cpu",
) -> torch.nn.Module:
    """Build the model of a run with the weights that it was trained to, in eval() mode.

    Args:
        run: its directory.
        which: None: the last; "best", or the round of a checkpoint. Of a run that has not ended: its newest checkpoint.
        job, data: None: as the run named them.

    Raises:
        UsageError: no run is there, it has no such weights, or its job cannot be built or has changed.
        CheckpointError: the weights are damaged.
    """
    flat, _ = _built(Path(run), which, job, None if data is None else Path(data))
    module = _set_free(flat)
    return module.to(device).eval()


def export(run: Path, to: Path, which: Which = None, *, job: str | None = None, data: Path | None = None) -> Exported:
    """Write the model of a run into a new folder: by its own `save_pretrained` if it has one, else as safetensors.

    Raises:
        UsageError: see `load`; or the folder is not empty or cannot be written.
        CheckpointError: see `load`.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UsageError(f"--to is {str(to)!r}, which exists already: expected a new or an empty folder")
    flat, settings = _built(run, which, job, data)
    fingerprint = flat.fingerprint()
    try:
        to.mkdir(parents=True, exist_ok=True)
        save = getattr(flat.module, "save_pretrained", None)
        if callable(save):
            # Views into one run of bytes would be taken for tensors that share memory.
            _set_free(flat)
            save(str(to))
        else:
            save_model(flat, to / MODEL)
            (to / NOTE).write_text(_note(run, settings, type(flat.module), fingerprint), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--to is {str(to)!r}, which cannot be written: {error.strerror or error}") from error
    names = tuple(sorted(path.name for path in to.iterdir()))
    return Exported(to, "huggingface" if callable(save) else "safetensors", names, fingerprint)


def _built(run: Path, which: Which, job: str | None, data: Path | None) -> tuple[FlatModel, RunSettings]:
    checkpoints_of(run)  # says if it is no run
    settings = read_beginning(run / SETTINGS).settings
    settings = settings.model_copy(update={"job": job or settings.job, "data": data or settings.data})
    with _weights(run, which) as path:
        # Its data may be elsewhere, and a model seldom needs them; a job that does says so itself.
        there = settings.data if settings.data is not None and settings.data.exists() else data
        flat = build_model(load_job(settings.job, there), settings.seed)
        load_init(flat, path)
    return flat, settings


@contextlib.contextmanager
def _weights(run: Path, which: Which) -> Iterator[Path]:
    """Give the file with the weights that are meant; those of a checkpoint are copied out and compared."""
    if which is None and (run / MODEL).is_file():
        yield run / MODEL
        return
    with tempfile.TemporaryDirectory(prefix="paceline-") as folder:
        out = Path(folder) / MODEL
        if which == "best":
            export_best(run, out)
        elif which is None or isinstance(which, int):
            export_checkpoint(run, which, out)
        else:
            raise UsageError(f"which is {which!r}: expected None, 'best' or the round of a checkpoint")
        yield out


def _set_free(flat: FlatModel) -> torch.nn.Module:
    """Give each tensor memory of its own, so that the module is like any other; tied ones stay tied."""
    tensors = {**dict(flat.module.named_parameters()), **dict(flat.module.named_buffers())}
    for tensor in tensors.values():
        tensor.data = tensor.data.clone()
    return flat.module


def _note(run: Path, settings: RunSettings, kind: type, fingerprint: str) -> str:
    return f"""A model trained with paceline {__version__}.

- `{MODEL}` has the parameters (tied ones once) and buffers of a `{kind.__module__}.{kind.__qualname__}`, built by
  `model()` of the job `{settings.job}`, seed {settings.seed}; run `{run}`, fingerprint {fingerprint}.
- `model.load_state_dict(safetensors.torch.load_file("{MODEL}"), strict=False)` reads it into a model built alike;
  `paceline.load` builds and fills it out of the run's directory.
- It has no `save_pretrained`, so that there is no configuration from which others could build it.
"""
