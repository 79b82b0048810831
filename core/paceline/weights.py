"""Reads and writes a model's weights as safetensors files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from paceline.errors import UsageError
from paceline.flat import FlatModel


def save_model(flat: FlatModel, path: Path) -> None:
    """Write all parameters (tied ones once) and persistent buffers; whole or not at all.

    The file gets a temporary name first, reaches the disk, and only then takes the place of the old one.
    """
    tensors = {name: view.cpu() for name, view in saved_tensors(flat).items()}
    temporary = path.with_name(f".{path.name}.tmp")
    save_file(tensors, temporary, metadata={"format": "pt"})
    _sync(temporary)
    temporary.replace(path)
    _sync(path.parent)


def load_init(flat: FlatModel, path: Path) -> None:
    """Read weights into a model; a tensor of another dtype is converted.

    Raises:
        UsageError: no such file, not a safetensors file, or tensors missing, unexpected or of another shape.
    """
    if not path.is_file():
        raise UsageError(f"weights {str(path)!r} do not exist: expected a safetensors file")
    wanted = saved_tensors(flat)
    aliases = set(flat.module.state_dict()) - set(wanted)
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            _check(repr(str(path)), found, wanted, aliases)
            for name, view in wanted.items():
                view.copy_(file.get_tensor(name))
    except SafetensorError as error:
        raise UsageError(f"weights {str(path)!r} cannot be read as safetensors: {error}") from error


def take_weights(flat: FlatModel, weights: Mapping[str, torch.Tensor], what: str) -> None:
    """Copy weights in memory into a model.

    Args:
        what: names them in error messages.

    Raises:
        UsageError: tensors missing, unexpected or of another shape.
    """
    wanted = saved_tensors(flat)
    _check(what, {name: tuple(tensor.shape) for name, tensor in weights.items()}, wanted, aliases=set())
    for name, view in wanted.items():
        view.copy_(weights[name])


def saved_tensors(flat: FlatModel) -> dict[str, torch.Tensor]:
    """Give what a file holds: the module's state, less what it makes itself (non-persistent buffers)."""
    persistent = flat.module.state_dict()
    return {name: view for name, view in flat.named_views().items() if name in persistent}


def _check(what: str, found: dict[str, tuple[int, ...]], wanted: dict[str, torch.Tensor], aliases: set[str]) -> None:
    def refuse(names: list[str], wrong: str) -> None:
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise UsageError(f"weights {what} do not fit the model: {wrong} {', '.join(names[:3])}{more}")

    refuse([name for name in wanted if name not in found], "missing")
    refuse([name for name in found if name not in wanted and name not in aliases], "unexpected")
    refuse(
        [
            f"{name} {found[name]} (model: {tuple(view.shape)})"
            for name, view in wanted.items()
            if found[name] != tuple(view.shape)
        ],
        "another shape for",
    )


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
