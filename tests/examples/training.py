"""The plainest training loop for a Job: one process, no paceline but the job."""

import numpy as np
import torch

from paceline.job import Job


def train(job: Job, rounds: int, batch: int, seed: int = 1) -> torch.nn.Module:
    """Train for some rounds of one batch each, samples drawn without replacement within an epoch.

    Returns:
        the model in eval() mode.
    """
    torch.manual_seed(seed)
    order = np.random.RandomState(seed)
    model, dataset = job.model(), job.dataset()
    optimizer = job.optimizer(model)
    scheduler = job.scheduler(optimizer)
    queue: list[int] = []
    for _ in range(rounds):
        while len(queue) < batch:
            queue.extend(order.permutation(len(dataset)).tolist())
        chosen, queue = queue[:batch], queue[batch:]
        optimizer.zero_grad()
        loss = job.loss(model, job.collate([dataset[i] for i in chosen]))
        assert isinstance(loss, torch.Tensor)
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no annotation here
        job.before_step(model)
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
    return model.eval()


def evaluate(job: Job, model: torch.nn.Module) -> dict[str, float]:
    """Evaluate as the server does: eval() mode, no gradients."""
    with torch.no_grad():
        return job.evaluate(model)
