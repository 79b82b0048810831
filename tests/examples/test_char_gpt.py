"""The character-level GPT learns, and its parts are what its name for them says."""

import sysconfig
from pathlib import Path

import pytest
import torch

from examples import char_gpt
from examples.char_gpt import (
    CONTEXT,
    SYMBOLS,
    TEST_CHARACTERS,
    TEXT_CHARACTERS,
    CharGpt,
    CharGptInLittleMemory,
    Windows,
)
from paceline.errors import UsageError
from tests.examples.training import evaluate, train


def test_the_text_is_split_once_and_has_no_overlap() -> None:
    training, test = char_gpt.corpus()
    assert len(training) == TEXT_CHARACTERS - TEST_CHARACTERS
    assert len(test) == TEST_CHARACTERS
    assert int(training.min()) >= 0
    assert int(training.max()) < SYMBOLS


def test_an_unknown_character_is_the_last_symbol() -> None:
    assert char_gpt.encode("\n ~\u00e4").tolist() == [0, 1, SYMBOLS - 2, SYMBOLS - 1]


def test_a_python_without_sources_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny.py").write_text("pass\n")
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    with pytest.raises(UsageError, match="holds 5 characters of Python source"):
        char_gpt.corpus.__wrapped__()


def test_windows_share_only_their_border() -> None:
    windows = Windows(torch.arange(3 * CONTEXT + 1))
    assert len(windows) == 3
    assert windows[0][-1] == windows[1][0]
    assert windows[2].tolist() == list(range(2 * CONTEXT, 3 * CONTEXT + 1))


def test_a_prediction_does_not_see_what_follows() -> None:
    model = CharGpt().model().eval()
    symbols = torch.randint(0, SYMBOLS, (1, CONTEXT), generator=torch.Generator().manual_seed(0))
    changed = symbols.clone()
    changed[0, 40:] = (changed[0, 40:] + 1) % SYMBOLS
    with torch.no_grad():
        before, after = model(symbols), model(changed)
    torch.testing.assert_close(before[0, :40], after[0, :40])
    assert not torch.allclose(before[0, 40:], after[0, 40:])


def test_matrices_decay_and_vectors_do_not() -> None:
    job = CharGpt()
    model = job.model()
    decaying, constant = job.optimizer(model).param_groups
    assert {p.dim() for p in decaying["params"]} == {2}
    assert {p.dim() for p in constant["params"]} == {1}
    assert len(decaying["params"]) + len(constant["params"]) == len(list(model.parameters()))
    assert decaying["weight_decay"] > 0
    assert constant["weight_decay"] == 0


def test_the_gradient_is_clipped_to_norm_one() -> None:
    job = CharGpt()
    model = job.model()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    job.before_step(model)
    norms = [float(parameter.grad.norm()) for parameter in model.parameters() if parameter.grad is not None]
    assert sum(norm * norm for norm in norms) == pytest.approx(1.0, rel=1e-3)


def test_the_learning_rate_rises_then_falls() -> None:
    scale = [char_gpt.warm_up_then_inverse_root(rounds) for rounds in range(80)]
    assert scale[:20] == sorted(scale[:20])
    assert scale[19] == 1.0
    assert scale[79] == pytest.approx(0.5)


def gradient_and_activations(job: CharGpt) -> tuple[torch.Tensor, int]:
    """Compute a batch's gradient; gives it flat, and the bytes that were kept for it but for parameters."""
    kept = 0

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += 0 if isinstance(tensor, torch.nn.Parameter) else tensor.nbytes
        return tensor

    torch.manual_seed(1)
    model = job.model()
    torch.manual_seed(2)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = job.loss(model, torch.stack([job.dataset()[index] for index in range(8)]))
    torch.autograd.backward(loss)
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None]), kept


def test_checkpointed_activations_give_the_same_gradient_in_less_memory() -> None:
    plain, whole = gradient_and_activations(CharGpt())
    recomputed, little = gradient_and_activations(CharGptInLittleMemory())
    assert torch.equal(plain, recomputed)
    assert little < whole / 8


def test_char_gpt_learns() -> None:
    job = CharGpt()
    trained = evaluate(job, train(job, rounds=40, batch=16))
    # log2(97) = 6.60 bits for a model that knows nothing; 4.44 for one that knows only how often each symbol comes.
    assert trained["bits_per_character"] < 4.2
    assert trained["loss"] == pytest.approx(trained["bits_per_character"] * 0.693147, rel=1e-5)
