"""What a user writes: a Job. Server and worker each import it from their own disk; no code crosses the wire."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.utils.data import default_collate

if TYPE_CHECKING:
    from paceline.streams import Shards

# A sample and a batch are whatever the user's dataset and collate make of them; paceline only carries them.
Sample = Any
Batch = Any
# Mean loss over the batch; or the sum and the number that it counts; or these and further sums by name.
Number = float | torch.Tensor
Loss = (
    torch.Tensor
    | tuple[torch.Tensor, int | torch.Tensor]
    | tuple[torch.Tensor, int | torch.Tensor, Mapping[str, Number]]
)
# What validate() gives.
Sums = Mapping[str, Number] | tuple[Mapping[str, Number], int | torch.Tensor]


class SampleSource(Protocol):
    """A map-style dataset with a length. ``__getitems__(list of indices)`` is used where it has one, as torch does."""

    def __len__(self) -> int:
        """Say how many samples there are."""
        ...

    def __getitem__(self, index: int, /) -> Sample:
        """Give one sample."""
        ...


class Job(abc.ABC):
    """A model, its data, its loss and its optimizer.

    Methods may draw random numbers from torch, numpy and random: paceline seeds all three, so that the same seed gives
    the same model, and a task the same gradient whoever computes it.

    Attributes:
        data: this machine's folder with the data (``--data``), or None.
        plateau_metric: the metric of validation() that a ReduceLROnPlateau of scheduler() is stepped with, each time
            that it was measured; None: the round's loss, each round.
    """

    data: Path | None = None
    plateau_metric: str | None = None

    @abc.abstractmethod
    def model(self) -> torch.nn.Module:
        """Build the model. Its train() or eval() mode stays as it is given."""

    def dataset(self) -> SampleSource:
        """Open the training data: a map-style dataset with len(). Without one, they are those of shards()."""
        shards = self.shards()
        if shards is None:
            raise NotImplementedError
        return shards if self.data is None else shards.below(self.data)

    def shards(self) -> Shards | None:
        """List training data that lie in files too big for one machine; paths are below the data folder."""
        return None

    @abc.abstractmethod
    def loss(self, model: torch.nn.Module, batch: Batch) -> Loss:
        """Compute the loss of a batch.

        Returns:
            The mean over the samples of the batch (a scalar tensor), or (sum, n): a sum over what is counted (tokens,
            say) and the number of them. Means of whole rounds are weighted by it. Or (sum, n, sums): further sums over
            the same n, such as {"accuracy_sum": right}, whose means over each round are shown beside the loss, under
            the name without "_sum"; up to 16, finite.
        """

    @abc.abstractmethod
    def optimizer(self, model: torch.nn.Module) -> torch.optim.Optimizer:
        """Make the optimizer over the model's parameters, groups and all. It lives on the server only."""

    def evaluate(self, model: torch.nn.Module) -> dict[str, float]:
        """Measure the model, e.g. ``{"accuracy": 0.97}``. The model is a copy in eval() mode, without gradients.

        It runs on the server, beside the rounds. With validation() and validate() the workers do it.
        """
        return {}

    def validation(self) -> SampleSource | None:
        """Open the validation data, a dataset as of `dataset`: workers measure the model on it, in pieces."""
        return None

    def validate(self, model: torch.nn.Module, batch: Batch) -> Sums:
        """Measure the model on a batch of validation(), in eval() mode and without gradients.

        Returns:
            Sums over the samples of the batch by name, such as {"accuracy_sum": right, "loss_sum": loss}; or (sums, n),
            where n is what they count (tokens, say). Up to 16, finite.
        """
        raise NotImplementedError

    def metrics(self, means: dict[str, float]) -> dict[str, float]:
        """Make the metrics of the means over all validation data, named without "_sum"; runs on the server."""
        return means

    def scheduler(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler | None:
        """Make a learning-rate scheduler; it is stepped once per round (ReduceLROnPlateau with the round's loss)."""
        return None

    def before_step(self, model: torch.nn.Module) -> None:
        """Change the averaged gradients in place before the optimizer's step, on the server: clipping."""
        return

    def state_dict(self) -> dict[str, Any]:
        """Give what the server's job keeps beside model, optimizer and scheduler (an average of the weights, counters).

        It goes into checkpoints: dicts, lists, tuples, tensors, numbers and text. Asked for between updates, on the
        server only.
        """
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave; its tensors are on the CPU."""
        return

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Make a batch of a list of samples."""
        return default_collate(list(samples))


def overrides(job: Job, method: str) -> bool:
    """Tell whether the user's class has its own version of an optional method."""
    return getattr(type(job), method) is not getattr(Job, method)
