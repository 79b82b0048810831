"""A language model on the bytes of one memory-mapped file, as large as the disk: tasks read what they need.

    python examples/token_file.py data ~/books/*.txt
    paceline run examples/token_file.py:ByteModel --data data --workers 2 --tasks 8 --micro-batch 8 --rounds 200

The first puts the texts one after another into data/train.bin and, the last twentieth, data/test.bin.
"""

import argparse
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from paceline.errors import UsageError
from paceline.job import Job

CONTEXT, WIDTH, HEADS, LAYERS = 64, 128, 4, 3
BYTES = 256
WARM_UP_ROUNDS = 20
# Of the test file, so many windows are measured.
MEASURED = 512


class Windows(Dataset[Tensor]):
    """A file cut into windows of CONTEXT + 1 bytes; the last byte of one is the first of the next.

    Raises:
        UsageError: it is not there, or holds no window.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise UsageError(f"{path} does not exist: make it with python examples/token_file.py {path.parent} FILE...")
        self._bytes = np.memmap(path, dtype=np.uint8, mode="r")
        if len(self) < 1:
            raise UsageError(f"{path} has {len(self._bytes)} bytes: expected at least {CONTEXT + 1}")

    def __len__(self) -> int:
        """Say how many whole windows there are."""
        return (len(self._bytes) - 1) // CONTEXT

    def __getitem__(self, index: int) -> Tensor:
        """Give one window, shape (CONTEXT + 1,), int64; its page of the file is read now."""
        start = index * CONTEXT
        return torch.from_numpy(self._bytes[start : start + CONTEXT + 1].astype(np.int64))


class Transformer(nn.Module):
    """A decoder of torch's own layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(BYTES, WIDTH)
        self.position = nn.Parameter(0.02 * torch.randn(CONTEXT, WIDTH))
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, 0.1, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, LAYERS, nn.LayerNorm(WIDTH), enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, BYTES)

    def forward(self, x: Tensor) -> Tensor:
        """Map bytes, shape (batch, length), to the logits of the next ones, shape (batch, length, BYTES)."""
        length = x.shape[1]
        mask = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
        logits: Tensor = self.head(self.layers(self.embedding(x) + self.position[:length], mask, is_causal=True))
        return logits


class ByteModel(Job):
    """Says which byte comes next."""

    def model(self) -> nn.Module:
        """See Job."""
        return Transformer()

    def dataset(self) -> Windows:
        """See Job."""
        return self.windows("train.bin")

    def windows(self, name: str) -> Windows:
        """Open a file of the data folder."""
        if self.data is None:
            raise UsageError("this job needs --data: the folder with train.bin and test.bin")
        return Windows(self.data / name)

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        """Compute the mean over all bytes; windows are alike, so it is that over windows."""
        return F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """See Job."""
        return torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)

    def scheduler(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        """Warm up."""
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: min(1.0, (done + 1) / WARM_UP_ROUNDS))

    def before_step(self, model: nn.Module) -> None:
        """Clip the averaged gradient to norm 1."""
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)

    def validation(self) -> torch.utils.data.Subset[Tensor]:
        """Give the first windows of the test file; workers measure the model on them."""
        windows = self.windows("test.bin")
        return torch.utils.data.Subset(windows, range(min(MEASURED, len(windows))))

    def validate(self, model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        """Sum up the loss of each window."""
        return {"loss_sum": len(batch) * self.loss(model, batch)}

    def metrics(self, means: dict[str, float]) -> dict[str, float]:
        """Give bits per byte beside the loss in nats."""
        return {**means, "bits_per_byte": means["loss"] / math.log(2)}


def pack(target: Path, texts: list[Path]) -> int:
    """Put texts one after another into the two files; gives the number of bytes."""
    target.mkdir(parents=True, exist_ok=True)
    total = sum(path.stat().st_size for path in texts)
    left = total - total // 20
    with (target / "train.bin").open("wb") as train, (target / "test.bin").open("wb") as test:
        for path in texts:
            content = path.read_bytes()
            train.write(content[: max(0, left)])
            test.write(content[max(0, left) :])
            left -= len(content)
    return total


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Put texts into the files that ByteModel trains on.")
    parser.add_argument("target", type=Path)
    parser.add_argument("texts", type=Path, nargs="+")
    asked = parser.parse_args()
    print(f"{pack(asked.target, asked.texts)} bytes in {asked.target}")
