"""Gives the model of a run: as a module, or as a folder that others can read."""

from __future__ import annotations

from pathlib import Path

import torch

from paceline.errors import UsageError
from paceline.flat import FlatModel, build_model
from paceline.loading import load_job
from paceline.weights import load_init


def load(run_dir: Path | str, job: str | None = None, weights: Path | str | None = None) -> torch.nn.Module:
    """Build the model of a run and give it the run's weights, in eval() mode, on the CPU.

    Args:
        run_dir: of a run that has ended.
        job: where the job is now; default: where it was.
        weights: another safetensors file, such as runs/a/best.safetensors.

    Raises:
        UsageError: no run, no weights, or weights that do not fit the job's model.
        JobImportError: the job's own code raised.
    """
    return _flat(Path(run_dir), job, None if weights is None else Path(weights)).module.eval()


def export(run_dir: Path | str, to: Path | str, job: str | None = None) -> Path:
    """Write the model of a run in Hugging Face's layout: config.json and model.safetensors, for from_pretrained().

    Args:
        to: a folder, which is made; nothing in it is overwritten.

    Raises:
        UsageError: as `load`; the folder holds something; or the model is not one of transformers.
    """
    folder = Path(to)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{str(folder)!r} is there already: expected a new or empty folder")
    module = load(run_dir, job)
    save = getattr(module, "save_pretrained", None)
    if save is None:
        kind = type(module).__name__
        raise UsageError(
            f"the model is a {kind}, which has no save_pretrained(): expected one of transformers; the weights of any "
            f"model are {str(Path(run_dir) / 'model.safetensors')!r}"
        )
    save(str(folder))
    return folder


def _flat(run_dir: Path, job: str | None, weights: Path | None) -> FlatModel:
    from paceline.server.past_run import read_beginning
    from paceline.server.rundir import MODEL, SETTINGS

    if not (run_dir / SETTINGS).is_file():
        raise UsageError(f"run {str(run_dir)!r} has no {SETTINGS}: expected the directory of a run")
    settings = read_beginning(run_dir / SETTINGS).settings
    path = weights or run_dir / MODEL
    if not path.is_file():
        raise UsageError(f"weights {str(path)!r} do not exist: the run has not ended, or saved none")
    flat = build_model(load_job(job or settings.job, settings.data), settings.seed)
    load_init(flat, path)
    return flat
