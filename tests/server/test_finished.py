"""A run's model comes out of its directory as it was trained: as a module of its own, or as a folder for others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from paceline.cli.app import run_command_line
from paceline.errors import UsageError
from paceline.server.finished import export, load
from tests.jobs import DigitsLike
from tests.server.recorded import Planned, Recorder, Share

PLAN = Planned((Share("w1", 0, (0, 1)), Share("w2", 0, (2,))))


def recorded(path: Path, job: str = "tests/jobs.py:DigitsLike", **settings: Any) -> Recorder:
    recorder = Recorder(path, job, **settings)
    recorder.round(PLAN)
    recorder.end()
    return recorder


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_a_module_has_the_weights_in_memory_of_its_own(tmp_path: Path) -> None:
    recorder = recorded(tmp_path / "run")
    module = load(str(tmp_path / "run"))
    assert same(module.state_dict(), recorder.states[-1])
    assert not same(module.state_dict(), recorder.states[0])
    assert not module.training
    for tensor in module.state_dict().values():
        assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()


def test_weights_without_a_config_go_with_a_note(tmp_path: Path) -> None:
    recorder = recorded(tmp_path / "run")
    before = sorted(path.name for path in (tmp_path / "run").iterdir())
    done = export(tmp_path / "run", tmp_path / "to/model")
    assert (done.layout, done.files) == ("safetensors", ("README.md", "model.safetensors"))
    module = DigitsLike().model()
    module.load_state_dict(load_file(tmp_path / "to/model/model.safetensors"))
    assert same(module.state_dict(), recorder.states[-1])
    note = (tmp_path / "to/model/README.md").read_text()
    assert "tests/jobs.py:DigitsLike" in note
    assert done.fingerprint in note
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == before


def test_a_model_of_hugging_faces_is_read_back_by_transformers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    transformers = pytest.importorskip("transformers")
    recorder = recorded(tmp_path / "run", "tests/server/hf_job.py:TinyGpt2", policy="uniform")
    assert run_command_line(["export", str(tmp_path / "run"), "--to", str(tmp_path / "model"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["layout"] == "huggingface"
    assert "config.json" in told["files"]
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert model.lm_head.weight is model.transformer.wte.weight
    ours = load(tmp_path / "run")
    ids = torch.arange(8).reshape(1, 8)
    assert torch.equal(model.eval()(ids).logits, ours(ids).logits)
    assert torch.equal(model.lm_head.weight, recorder.states[-1]["transformer.wte.weight"])


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    recorded(tmp_path / "run")
    never_ended = Recorder(tmp_path / "killed")
    never_ended.end(None)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    for ask, words in (
        (lambda: load(tmp_path / "none"), "does not exist: expected the directory of a run"),
        (lambda: load(tmp_path), "has no settings.json"),
        (lambda: load(tmp_path / "killed"), "has no checkpoints"),
        (lambda: load(tmp_path / "run", 7), "has no checkpoint"),
        (lambda: load(tmp_path / "run", "best"), "has no best.safetensors"),
        (lambda: load(tmp_path / "run", "bst"), "which is 'bst': expected None, 'best' or the round"),  # type: ignore[arg-type]
        (lambda: load(tmp_path / "run", job="tests/jobs.py:Missing"), "has no class 'Missing'"),
        (lambda: export(tmp_path / "run", tmp_path / "full"), "exists already: expected a new or an empty folder"),
    ):
        with pytest.raises(UsageError, match=words):
            ask()


def test_a_job_that_has_changed_since_is_refused(tmp_path: Path) -> None:
    recorded(tmp_path / "run")
    pytest.importorskip("transformers")
    with pytest.raises(UsageError, match="do not fit the model: missing"):
        load(tmp_path / "run", job="tests/server/hf_job.py:TinyGpt2")


def test_best_and_a_round_contradict_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["export", str(tmp_path), "--to", str(tmp_path / "x"), "--best", "--round", "3"]
    assert run_command_line(line) == 2
    assert "--best and --round 3 contradict each other" in capsys.readouterr().err
