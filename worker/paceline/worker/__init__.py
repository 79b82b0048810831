"""The worker: computes tasks for a server. `run_worker` runs one as a process."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paceline.settings import WorkerSettings

__all__ = ["run_worker"]


def run_worker(settings: WorkerSettings) -> int:
    """Run a worker until its run is over and give its exit code; see service.run_worker.

    Imported when it is called: torch and gRPC take seconds.
    """
    # gRPC's own lines about connections that come and go would stand between ours.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    from paceline.worker import service

    return service.run_worker(settings)
