"""Rehearses a checkpoint before the run begins, so that a state that cannot be saved is refused then, by name.

An optimizer has its state only after a step. One is made on another model of the job, with gradients of zero.
"""

from __future__ import annotations

import torch

from paceline.errors import UsageError
from paceline.flat import FlatModel
from paceline.job import Job
from paceline.loading import users_code
from paceline.statefile import pack
from paceline.task_loading import is_out_of_memory
from paceline.update import Updater


def rehearse(job: Job, scratch: FlatModel) -> None:
    """See that all that a checkpoint holds of the job is plain.

    Args:
        scratch: a model of the job's own, whose parameters are changed.

    Raises:
        UsageError: the state of its optimizer or scheduler, or its state_dict(), holds something else than tensors,
            numbers, text, lists, tuples and dicts; the message names it. Or there is no room for it.
        JobImportError: state_dict() raised.
    """
    updater = Updater(job, scratch)
    with torch.no_grad():
        for _, _, parameters in scratch.trainable():
            for parameter in parameters:
                parameter.grad = torch.zeros_like(parameter)
    try:
        updater.optimizer.step()
    except Exception as error:
        if is_out_of_memory(error):
            raise UsageError(updater.no_room(error)) from error
        # It may well manage real gradients; then its state is looked at when it is saved.
        return
    packed_bytes(updater)


def packed_bytes(updater: Updater) -> dict[str, int]:
    """Pack all that a checkpoint holds of a job beside its model.

    Returns:
        Bytes of the tensors in the state of optimizer, scheduler and job, by these names.

    Raises:
        UsageError, JobImportError: see rehearse.
    """
    with users_code("state_dict()"):
        state = updater.state_dict()
    found = {}
    for part in ("optimizer", "scheduler", "job"):
        _, tensors = pack(state[part], "state_dict() of the job" if part == "job" else f"state of the {part}")
        found[part] = sum(tensor.nbytes for tensor in tensors.values())
    return found
