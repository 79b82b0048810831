"""Small checkpoints, and how to see that they are whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from paceline.server.checkpoints import CheckpointReader, CheckpointStore


def weights_of(version: int, numel: int = 64) -> dict[str, torch.Tensor]:
    base = torch.arange(2 * numel, dtype=torch.float32) + version
    # Views of one memory, as those of a FlatModel are.
    return {"layer.weight": base[:numel].reshape(8, -1), "layer.bias": base[numel:]}


def state_of(version: int) -> dict[str, object]:
    optimizer = {"state": {0: {"step": torch.tensor(float(version)), "exp_avg": torch.full((5,), version / 7)}}}
    return {"optimizer": optimizer, "scheduler": None, "best": float("inf"), "betas": (0.9, 0.99)}


def save(store: CheckpointStore, version: int, **more: Any) -> Any:
    return store.save(version, weights_of(version), state_of(version), {"ledger_row": version * 3}, **more)


def assert_whole(store: CheckpointReader, version: int) -> None:
    loaded = store.load(version)
    assert loaded.version == version
    assert loaded.content == {"ledger_row": version * 3}
    assert {name: tensor.tolist() for name, tensor in loaded.weights.items()} == {
        name: tensor.tolist() for name, tensor in weights_of(version).items()
    }
    assert str(loaded.state) == str(state_of(version))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
