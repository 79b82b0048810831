"""What training scripts do beside the ordinary: each trains as a plain loop does, within 1e-5."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from paceline.flat import build_model
from paceline.job import Job
from paceline.layout import contribution_layout
from tests.curves import SEED, curve_of
from tests.jobs import digits_like
from tests.recipes.plain import ROUNDS, assert_trains_as_plain, plain_loop

# torch has no types for it.
EMA: Any = get_ema_multi_avg_fn(0.9)  # type: ignore[no-untyped-call]


class Recipe(Job):
    """A small network without chance; each recipe changes one thing."""

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.GELU(), nn.Linear(32, 10))

    def dataset(self) -> Any:
        return digits_like(160)

    def loss(self, model: nn.Module, batch: Any) -> Any:
        images, labels = batch
        return F.cross_entropy(model(images), labels)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.1)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(64, 32, bias=False)
        self.out = nn.Linear(32, 64, bias=False)
        self.out.weight = nn.Parameter(self.embed.weight.t().contiguous())
        self.back = nn.Linear(64, 32, bias=False)
        self.back.weight = self.embed.weight
        self.head = nn.Linear(32, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.embed(images.flatten(1)))
        output: torch.Tensor = self.head(torch.tanh(self.back(self.out(hidden))))
        return output


class TiedWeights(Recipe):
    def model(self) -> nn.Module:
        return Tied()


class WeightNorm(Recipe):
    def model(self) -> nn.Module:
        first, last = parametrizations.weight_norm(nn.Linear(64, 32)), nn.Linear(32, 10)
        return nn.Sequential(nn.Flatten(), first, nn.GELU(), last)


class Orthogonal(Recipe):
    def model(self) -> nn.Module:
        first, last = parametrizations.orthogonal(nn.Linear(64, 32)), nn.Linear(32, 10)
        return nn.Sequential(nn.Flatten(), first, nn.GELU(), last)


class SeveralLosses(Recipe):
    def loss(self, model: nn.Module, batch: Any) -> Any:
        images, labels = batch
        outputs = model(images)
        return F.cross_entropy(outputs, labels) + 0.1 * outputs.pow(2).mean() + F.multi_margin_loss(outputs, labels)


class PerGroupRates(Recipe):
    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        decayed = [parameter for parameter in model.parameters() if parameter.dim() > 1]
        others = [parameter for parameter in model.parameters() if parameter.dim() == 1]
        groups = [{"params": decayed, "lr": 1e-2, "weight_decay": 0.2}, {"params": others, "lr": 1e-3}]
        return torch.optim.AdamW(groups, weight_decay=0.0)


class OneCycle(Recipe):
    def scheduler(self, optimizer: torch.optim.Optimizer) -> Any:
        return OneCycleLR(optimizer, max_lr=0.02, total_steps=ROUNDS + 1)


class WarmUpAndCosine(Recipe):
    def scheduler(self, optimizer: torch.optim.Optimizer) -> Any:
        def factor(step: int) -> float:
            return (step + 1) / 4 if step < 4 else 0.5 * (1 + math.cos(math.pi * (step - 4) / (ROUNDS - 4)))

        return LambdaLR(optimizer, factor)


class Plateau(Recipe):
    def scheduler(self, optimizer: torch.optim.Optimizer) -> Any:
        return ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=0.1)


class Clipped(Recipe):
    def before_step(self, model: nn.Module) -> None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)


class ClippedByValue(Recipe):
    def before_step(self, model: nn.Module) -> None:
        torch.nn.utils.clip_grad_value_(model.parameters(), 0.01)


class Fused(Recipe):
    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(model.parameters(), lr=5e-3, fused=True)


class Foreach(Recipe):
    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(model.parameters(), lr=5e-3, foreach=True)


class Amsgrad(Recipe):
    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(model.parameters(), lr=5e-3, amsgrad=True)


class NesterovMomentum(Recipe):
    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)


class FloatState(Recipe):
    """Adagrad and ASGD keep floats and tensors of one number beside those of the parameters' shapes."""

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.ASGD(model.parameters(), lr=0.1, lambd=1e-3, alpha=0.75)


class FactoredState(Recipe):
    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adafactor(model.parameters(), lr=0.05)


class Frozen(Recipe):
    def model(self) -> nn.Module:
        model = super().model()
        model[1].requires_grad_(False)  # type: ignore[index]
        return model

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "recipe",
    [
        TiedWeights, WeightNorm, Orthogonal, SeveralLosses, PerGroupRates, OneCycle, WarmUpAndCosine, Plateau, Clipped,
        ClippedByValue, Fused, Foreach, Amsgrad, NesterovMomentum, FloatState, FactoredState, Frozen,
    ],
)  # fmt: skip
def test_a_recipe_trains_as_a_plain_loop_does(recipe: type[Job]) -> None:
    assert_trains_as_plain(recipe)


class SpectralNorm(Recipe):
    """Its power iteration is a step of a buffer in each forward: by tasks there are more of them than by rounds."""

    def model(self) -> nn.Module:
        first, last = parametrizations.spectral_norm(nn.Linear(64, 32)), nn.Linear(32, 10)
        return nn.Sequential(nn.Flatten(), first, nn.GELU(), last)


def test_spectral_norm_trains_and_keeps_its_norm() -> None:

    losses, state = curve_of(SpectralNorm(), ROUNDS, 1)
    assert losses[-1] < losses[0]
    flat = build_model(SpectralNorm(), SEED)
    flat.module.load_state_dict(state)
    flat.module.eval()
    weight = flat.module[1].weight  # type: ignore[index]
    assert torch.linalg.matrix_norm(weight, 2).item() == pytest.approx(1.0, rel=0.15)


class Ema(Recipe):
    """Keeps an average of the weights on the server, as torch's AveragedModel does, and measures it."""

    average: AveragedModel | None = None

    def before_step(self, model: nn.Module) -> None:
        if self.average is None:
            self.average = AveragedModel(copy.deepcopy(model), multi_avg_fn=EMA)
        self.average.update_parameters(model)

    def state_dict(self) -> dict[str, Any]:
        return {} if self.average is None else {"average": self.average.state_dict()}


def test_an_average_of_the_weights_is_torchs_own() -> None:

    job, plain = Ema(), Ema()
    curve_of(job, ROUNDS)
    plain_loop(plain)
    ours, theirs = job.state_dict()["average"], plain.state_dict()["average"]
    assert ours["n_averaged"] == theirs["n_averaged"] == ROUNDS
    for name, tensor in theirs.items():
        assert torch.allclose(ours[name].double(), tensor.double(), atol=1e-5), name


class Low(nn.Module):
    """A frozen layer and a trainable product of low rank beside it."""

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(rank, layer.in_features) / 8)
        self.up = nn.Parameter(torch.zeros(layer.out_features, rank))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.layer(inputs) + inputs @ self.down.t() @ self.up.t()
        return output


class Lora(Recipe):
    def model(self) -> nn.Module:
        return nn.Sequential(nn.Flatten(), Low(nn.Linear(64, 256), 4), nn.GELU(), Low(nn.Linear(256, 10), 4))

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)


def test_of_adapters_of_low_rank_only_the_trainable_part_travels() -> None:
    assert_trains_as_plain(Lora)
    assert_only_the_trainable_part_travels(Lora(), 4 * (64 + 256) + 4 * (256 + 10))


def assert_only_the_trainable_part_travels(job: Job, numel: int) -> None:
    """Look at what a pull and a push hold: float32 numbers, each tensor begun at a multiple of 64 bytes."""
    flat = build_model(job, SEED)
    trainable = [parameter for parameter in flat.module.parameters() if parameter.requires_grad]
    assert sum(parameter.numel() for parameter in trainable) == numel
    for nbytes in (flat.layout.version_nbytes, contribution_layout(flat.layout, "fast").nbytes):
        assert 4 * numel <= nbytes < 4 * numel + 64 * len(trainable)


@pytest.mark.slow
def test_of_a_model_of_peft_only_the_trainable_part_travels() -> None:
    peft = pytest.importorskip("peft")

    class Peft(Recipe):
        def model(self) -> nn.Module:
            config = peft.LoraConfig(r=4, target_modules=["1", "3"], init_lora_weights=True)
            model: nn.Module = peft.get_peft_model(super().model(), config)
            return model

        def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
            return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)

    assert_trains_as_plain(Peft)
    assert_only_the_trainable_part_travels(Peft(), 4 * (64 + 32) + 4 * (32 + 10))
