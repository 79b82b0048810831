"""The loop that everybody has: a classifier of points in two interleaved spirals. Nothing of paceline is in it."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

EPOCHS = 10
BATCH = 128


class Net(nn.Module):
    """Three layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))

    def forward(self, x: Tensor) -> Tensor:
        """Map points, shape (batch, 2), to logits, shape (batch, 2)."""
        logits: Tensor = self.layers(x)
        return logits


def spirals(points: int, seed: int) -> TensorDataset:
    """Make points of two spirals, and which spiral each is on. Here your own dataset would be opened."""
    generator = torch.Generator().manual_seed(seed)
    spiral = torch.randint(0, 2, (points,), generator=generator)
    turn = torch.rand(points, generator=generator) * 1.5 * math.pi + 0.5
    angle = turn + math.pi * spiral
    place = torch.stack([turn * angle.cos(), turn * angle.sin()], 1) / 4
    return TensorDataset(place + 0.04 * torch.randn(points, 2, generator=generator), spiral)


def main() -> None:
    """Train and evaluate."""
    torch.manual_seed(1)  # (1)
    model = Net()  # (2)
    loader = DataLoader(spirals(4096, seed=1), batch_size=BATCH, shuffle=True)  # (3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)  # (4)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=EPOCHS * len(loader))  # (4)
    for epoch in range(EPOCHS):  # (5)
        for x, y in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)  # (6)
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no annotation here
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # (7)
            optimizer.step()
            scheduler.step()
        model.eval()
        with torch.no_grad():
            x, y = spirals(1024, seed=2).tensors
            accuracy = (model(x).argmax(1) == y).float().mean().item()  # (8)
        model.train()
        print(f"epoch {epoch + 1}: loss {loss.item():.4f}, accuracy {accuracy:.3f}")
    torch.save(model.state_dict(), "model.pt")  # (9)


if __name__ == "__main__":
    main()
