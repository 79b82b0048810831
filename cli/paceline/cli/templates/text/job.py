"""Learns to write like the *.txt files of a folder: a small transformer that guesses the next character.

paceline run {{job}}
"""

import functools
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from paceline.errors import UsageError
from paceline.job import Job

CONTEXT = 64  # characters that the model looks back
WIDTH = 64
HEADS = 4
LAYERS = 2
DROPOUT = 0.1
HELD_OUT = 0.1  # the last tenth of the text is evaluated on
WARM_UP_ROUNDS = 20
EVALUATION_WINDOWS = 256  # at most


@functools.cache
def read(folder: Path) -> tuple[str, Tensor]:
    """Read all texts of a folder, in the order of their names: it must be the same on all machines.

    Returns:
        The alphabet, and the text as places in it, shape (characters,), int64.
    """
    files = sorted(folder.glob("*.txt"))
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    if len(text) < 20 * CONTEXT:
        # A UsageError is shown as one line, without a traceback.
        raise UsageError(f"{folder} has {len(files)} *.txt files with {len(text)} characters: put your texts there")
    alphabet = "".join(sorted(set(text)))
    place = {character: number for number, character in enumerate(alphabet)}
    return alphabet, torch.tensor([place[character] for character in text])


class Windows(Dataset[Tensor]):
    """A text cut into windows of CONTEXT + 1 characters; the last of one is the first of the next."""

    def __init__(self, symbols: Tensor) -> None:
        self.symbols = symbols

    def __len__(self) -> int:
        """Say how many whole windows there are."""
        return (len(self.symbols) - 1) // CONTEXT

    def __getitem__(self, index: int) -> Tensor:
        """Give one window, shape (CONTEXT + 1,)."""
        return self.symbols[index * CONTEXT : (index + 1) * CONTEXT + 1]


class Transformer(nn.Module):
    """Maps characters, shape (batch, length), to logits of the next ones, shape (batch, length, symbols)."""

    mask: Tensor

    def __init__(self, symbols: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, WIDTH)
        self.position = nn.Embedding(CONTEXT, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, DROPOUT, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, symbols)
        # No character sees the ones after it.
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(CONTEXT), persistent=False)

    def forward(self, characters: Tensor) -> Tensor:
        """Guess what comes after each character."""
        length = characters.shape[1]
        x = self.embedding(characters) + self.position(torch.arange(length, device=characters.device))
        logits: Tensor = self.head(self.layers(x, mask=self.mask[:length, :length], is_causal=True))
        return logits


class Text(Job):
    """The next character, from those before it."""

    def texts(self) -> tuple[str, Tensor]:
        """Read the folder that --data names; each machine has its own copy."""
        if self.data is None:
            raise UsageError("this job needs --data: the folder with the *.txt files")
        return read(self.data)

    def model(self) -> nn.Module:
        """Build the model; the weights are drawn under the run's seed."""
        alphabet, _ = self.texts()
        return Transformer(len(alphabet))

    def dataset(self) -> Windows:
        """Give what is trained on: all but the end of the text."""
        _, symbols = self.texts()
        return Windows(symbols[: int(len(symbols) * (1 - HELD_OUT))])

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        """Give the mean loss over a batch, in nats per character; its gradient is what workers compute."""
        return F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Make the optimizer; it runs on the server, once per round. Matrices decay, biases and norms do not."""
        groups = [
            {"params": [p for p in model.parameters() if p.dim() >= 2], "weight_decay": 0.1},
            {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=3e-3, betas=(0.9, 0.95))

    def scheduler(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        """Let the learning rate rise, then fall; it is stepped once per round."""
        return torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda done: min((done + 1) / WARM_UP_ROUNDS, math.sqrt(WARM_UP_ROUNDS / (done + 1)))
        )

    def before_step(self, model: nn.Module) -> None:
        """Clip the averaged gradient, on the server."""
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Measure a version on the end of the text; the server does it while workers go on."""
        _, symbols = self.texts()
        windows = Windows(symbols[int(len(symbols) * (1 - HELD_OUT)) :])
        batch = torch.stack([windows[index] for index in range(min(len(windows), EVALUATION_WINDOWS))])
        loss = float(self.loss(model, batch.to(next(model.parameters()).device)))
        return {"loss": loss, "bits_per_character": loss / math.log(2)}
