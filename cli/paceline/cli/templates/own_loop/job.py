"""The loop of loop.py as a job. What is not here (seed, epochs, batch, saving) is in paceline.toml, or is done for you.

paceline run {{job}}
"""

import torch
from loop import BATCH, EPOCHS, Net, spirals
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from paceline.job import Job


class Own(Job):
    """The same model, data, loss and optimizer as in loop.py, which is imported: it lies beside this file.

    (1) the seed, (3) the batch = tasks x micro-batch, and (5) the epochs stand in paceline.toml; (9) the weights are in
    the run's directory. Whatever loop.py does when it is imported would be done on each machine: it needs its
    `if __name__ == "__main__":`.
    """

    def model(self) -> nn.Module:
        """(2) Build the model, on the CPU; paceline moves it to --device."""
        return Net()

    def dataset(self) -> TensorDataset:
        """(3) Open the dataset; paceline shuffles and batches. A folder on the disk would be self.data, from --data."""
        return spirals(4096, seed=1)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """(4) Make the optimizer; it lives on the server."""
        return torch.optim.AdamW(model.parameters(), lr=0.01)

    def scheduler(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        """(4) Make the scheduler; it is stepped once per update, so its length is counted in updates."""
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=EPOCHS * 4096 // BATCH)

    def loss(self, model: nn.Module, batch: list[Tensor]) -> Tensor:
        """(6) Give the mean loss of a batch (here of one task); no backward(), no zero_grad()."""
        x, y = batch
        return F.cross_entropy(model(x), y)

    def before_step(self, model: nn.Module) -> None:
        """(7) Clip the gradient of the whole batch, on the server, just before optimizer.step()."""
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """(8) Measure; the model is a copy in eval() mode, without gradients."""
        x, y = spirals(1024, seed=2).tensors
        device = next(model.parameters()).device
        return {"accuracy": (model(x.to(device)).argmax(1).cpu() == y).float().mean().item()}
