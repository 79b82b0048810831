from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, load_model, save_file
from torch import nn

from paceline.errors import UsageError
from paceline.flat import FlatModel, build_model
from paceline.weights import load_init, save_model
from tests.jobs import Augmented, DigitsLike, DigitsLikeFloat64, TangledModel


@pytest.mark.parametrize("job", [DigitsLike, Augmented])
def test_saved_weights_read_back(job: Any, tmp_path: Path) -> None:
    source, target = build_model(job(), 1), build_model(job(), 2)
    save_model(source, tmp_path / "model.safetensors")
    load_init(target, tmp_path / "model.safetensors")
    for name, value in source.module.state_dict().items():
        assert torch.equal(target.module.state_dict()[name], value), name


def test_the_file_is_plain_safetensors_with_tied_tensors_once(tmp_path: Path) -> None:
    flat = FlatModel(TangledModel())
    save_model(flat, tmp_path / "m.safetensors")
    names = set(load_file(tmp_path / "m.safetensors"))
    assert "first.weight" in names
    assert "second.weight" not in names
    assert "frozen.weight" in names
    assert "table" not in names, "the module makes it itself"
    other = TangledModel()
    load_model(other, tmp_path / "m.safetensors")
    assert torch.equal(other.second.weight, flat.module.state_dict()["first.weight"])


def test_saving_replaces_a_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    save_model(build_model(DigitsLike(), 1), path)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        save_model(build_model(DigitsLike(), 2), path)
    assert path.read_bytes() == before
    monkeypatch.undo()
    save_model(build_model(DigitsLike(), 2), path)
    assert path.read_bytes() != before
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.safetensors"]


def test_another_dtype_is_converted(tmp_path: Path) -> None:
    source, target = build_model(DigitsLike(), 1), build_model(DigitsLikeFloat64(), 2)
    save_model(source, tmp_path / "m.safetensors")
    load_init(target, tmp_path / "m.safetensors")
    weight = target.named_views()["6.weight"]
    assert weight.dtype == torch.float64
    assert torch.equal(weight, source.named_views()["6.weight"].double())


def test_a_file_with_tied_names_twice_is_taken(tmp_path: Path) -> None:
    state = {name: value.clone() for name, value in TangledModel().state_dict().items()}
    save_file(state, tmp_path / "m.safetensors")
    load_init(FlatModel(TangledModel()), tmp_path / "m.safetensors")


def _refusal(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> str:
    path = tmp_path / "m.safetensors"
    save_file(tensors, path)
    flat = FlatModel(nn.Linear(3, 2))
    before = flat.fingerprint()
    with pytest.raises(UsageError) as caught:
        load_init(flat, path)
    assert flat.fingerprint() == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_weights_that_do_not_fit_are_refused_by_name(tmp_path: Path) -> None:
    weight, bias = torch.zeros(2, 3), torch.zeros(2)
    assert "do not fit the model: missing bias" in _refusal(tmp_path, {"weight": weight})
    assert "unexpected scale" in _refusal(tmp_path, {"weight": weight, "bias": bias, "scale": bias.clone()})
    assert "another shape for weight (3, 2) (model: (2, 3))" in _refusal(
        tmp_path, {"weight": weight.t().contiguous(), "bias": bias}
    )
    assert "unexpected a0, a1, a2 and 2 more" in _refusal(
        tmp_path, {"weight": weight, "bias": bias, **{f"a{i}": torch.zeros(1) for i in range(5)}}
    )


def test_a_missing_file_and_garbage_are_refused(tmp_path: Path) -> None:
    flat = FlatModel(nn.Linear(3, 2))
    with pytest.raises(UsageError, match="do not exist"):
        load_init(flat, tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"not a model at all, certainly")
    with pytest.raises(UsageError, match="cannot be read as safetensors"):
        load_init(flat, tmp_path / "bad.safetensors")
