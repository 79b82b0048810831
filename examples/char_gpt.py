"""A character-level GPT that learns to write Python from the standard library of the interpreter that runs it.

    paceline run examples/char_gpt.py:CharGpt --workers 2 --tasks 8 --micro-batch 8 --rounds 200 --eval-every 50

The text is there on every machine, but differs between versions of Python: workers need the server's version.
"""

import functools
import math
import sysconfig
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import Dataset

from paceline.errors import UsageError
from paceline.job import Job

CONTEXT = 64
WIDTH = 96
HEADS = 4
LAYERS = 3
DROPOUT = 0.1
# About half of 1 / sqrt(WIDTH). The usual 0.02 is meant for widths of 768 and more; here it learns more slowly.
INITIAL_SD = 0.05

TEXT_CHARACTERS = 1_000_000
TEST_CHARACTERS = 50_000
# Printable ASCII, so that the model's shape does not hang on the text; every other character is the last symbol.
ALPHABET = "\n" + "".join(map(chr, range(32, 127)))
SYMBOLS = len(ALPHABET) + 1

WARM_UP_ROUNDS = 20
LEARNING_RATE = 3e-3
EVALUATION_BATCH = 64


def encode(text: str) -> Tensor:
    """Turn text into symbols, shape (len(text),), int64."""
    number = {character: index for index, character in enumerate(ALPHABET)}
    return torch.tensor([number.get(character, len(ALPHABET)) for character in text])


@functools.cache
def corpus() -> tuple[Tensor, Tensor]:
    """Read the standard library's top modules by name until there is enough.

    Returns:
        training and test symbols; the test text is the end.
    Raises:
        UsageError: this Python has no readable standard library, or a very short one.
    """
    pieces: list[str] = []
    length = 0
    folder = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(folder.glob("*.py")):
        pieces.append(path.read_text(encoding="utf-8"))
        length += len(pieces[-1])
        if length >= TEXT_CHARACTERS:
            break
    if length < TEXT_CHARACTERS:
        raise UsageError(f"{folder} holds {length} characters of Python source; the job needs {TEXT_CHARACTERS}")
    symbols = encode("".join(pieces)[:TEXT_CHARACTERS])
    return symbols[:-TEST_CHARACTERS], symbols[-TEST_CHARACTERS:]


class Windows(Dataset[Tensor]):
    """A text cut into windows of CONTEXT + 1 symbols; the last symbol of one is the first of the next."""

    def __init__(self, symbols: Tensor) -> None:
        self.symbols = symbols

    def __len__(self) -> int:
        """Say how many whole windows there are."""
        return (len(self.symbols) - 1) // CONTEXT

    def __getitem__(self, index: int) -> Tensor:
        """Give one window, shape (CONTEXT + 1,), int64."""
        return self.symbols[index * CONTEXT : (index + 1) * CONTEXT + 1]


class Block(nn.Module):
    """Causal self-attention and a two-layer network, each normalised before and added to its input."""

    def __init__(self) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(WIDTH)
        self.query_key_value = nn.Linear(WIDTH, 3 * WIDTH)
        self.attention_out = nn.Linear(WIDTH, WIDTH)
        self.network_norm = nn.LayerNorm(WIDTH)
        self.network = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, length, WIDTH) to the same shape."""
        heads = self.query_key_value(self.attention_norm(x)).unflatten(-1, (3 * HEADS, -1)).transpose(1, 2)
        query, key, value = heads.chunk(3, dim=1)
        attended: Tensor = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.dropout(self.attention_out(attended.transpose(1, 2).flatten(2)))
        processed: Tensor = self.dropout(self.network(self.network_norm(x)))
        return x + processed


class Gpt(nn.Module):
    """A decoder-only transformer whose output layer is its embedding (tied: the two share one tensor)."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(SYMBOLS, WIDTH)
        self.position = nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, SYMBOLS, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=INITIAL_SD)
        self.head.weight = self.embedding.weight

    def forward(self, symbols: Tensor) -> Tensor:
        """Map symbols, shape (batch, length), to the logits of the next ones, shape (batch, length, SYMBOLS)."""
        positions = torch.arange(symbols.shape[1], device=symbols.device)
        logits: Tensor = self.head(self.norm(self.blocks(self.embedding(symbols) + self.position(positions))))
        return logits


def warm_up_then_inverse_root(rounds: int) -> float:
    """Scale the learning rate: rises linearly, then falls with the square root, however long the run is."""
    done = rounds + 1
    return min(done / WARM_UP_ROUNDS, math.sqrt(WARM_UP_ROUNDS / done))


def cross_entropy(model: nn.Module, windows: Tensor) -> Tensor:
    """Compute the mean loss in nats per character of windows, shape (batch, CONTEXT + 1)."""
    return F.cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())


class CharGpt(Job):
    """A GPT of 350,000 parameters with what training one needs: parameter groups, clipping, a scheduler."""

    def model(self) -> nn.Module:
        """Build the transformer."""
        return Gpt()

    def dataset(self) -> Windows:
        """Give the training text in windows."""
        return Windows(corpus()[0])

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        """Compute the mean loss: all windows have the same length, so the mean over them is that over characters."""
        return cross_entropy(model, batch)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """AdamW; matrices decay, biases and norms do not."""
        parameters = list(model.parameters())
        groups = [
            {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": 0.1},
            {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.95))

    def scheduler(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        """Warm up, then decay."""
        return torch.optim.lr_scheduler.LambdaLR(optimizer, warm_up_then_inverse_root)

    def before_step(self, model: nn.Module) -> None:
        """Clip the averaged gradient to norm 1."""
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Measure loss (nats) and bits per character on the test text."""
        windows = Windows(corpus()[1])
        device = next(model.parameters()).device
        total = 0.0
        for start in range(0, len(windows), EVALUATION_BATCH):
            part = torch.stack([windows[i] for i in range(start, min(start + EVALUATION_BATCH, len(windows)))])
            total += float(cross_entropy(model, part.to(device))) * len(part)
        loss = total / len(windows)
        return {"loss": loss, "bits_per_character": loss / math.log(2)}


class Recomputed(nn.Module):
    """A block that keeps its input alone and is computed a second time for its gradient, with the same dropout."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, length, WIDTH) to the same shape."""
        y: Tensor = checkpoint(self.block, x, use_reentrant=False)
        return y


class CharGptInLittleMemory(CharGpt):
    """The same with activation checkpointing: forward keeps a tenth of the bytes, and blocks are computed twice."""

    def model(self) -> nn.Module:
        """Build the transformer, and wrap its blocks."""
        model = Gpt()
        model.blocks = nn.Sequential(*(Recomputed(block) for block in model.blocks))
        return model
